/** What the page knows of the service: the model, the people, what is being made. */
import { computed, effect, signal } from "@preact/signals";
import { follow } from "../api/events";
import { isReachable, patiently, read, Refused, revision, send, Unreachable, newKey } from "../api/http";
import type { Batch, Generation, Job, JobEvent, Model, Pack, Picture, Problem, Subject } from "../api/types";
import { texts } from "../texts";

export const model = signal<Model | null>(null);
export const packs = signal<Pack[]>([]);
/** Newest first; null until they were read. */
export const people = signal<Subject[] | null>(null);
/** Jobs that are not over, and those that failed and were not dismissed, by id. */
export const live = signal<Record<string, Live>>({});
export const batches = signal<Batch[]>([]);
/** The crops of people that were made in this tab, to compare pictures with; they are stored nowhere. */
export const crops = new Map<string, string>();
export const notices = signal<Notice[]>([]);

export interface Notice {
  id: number;
  text: string;
  isBad: boolean;
}

/** A job with what was asked of it, as far as this page knows. */
export interface Live {
  job: Job;
  prompt: string;
  count: number;
}

export const person = (id: string) => computed(() => people.value?.find((each) => each.id === id) ?? null);
export const nameOf = (subject: Subject | null | undefined) => subject?.name || texts.unnamed;

let numbers = 0;
export function say(text: string, isBad = false) {
  const notice = { id: (numbers += 1), text, isBad };
  notices.value = [...notices.value, notice];
  setTimeout(() => (notices.value = notices.value.filter((each) => each !== notice)), isBad ? 9000 : 4000);
}

/** Say what went wrong, unless the page says so already in another way. */
export function complain(error: unknown) {
  if (error instanceof Refused && error.problem.status !== 401) say(error.problem.detail, true);
  else if (!(error instanceof Unreachable) && !(error instanceof Refused) && !isAbort(error)) {
    console.warn(error);
    say(texts.states.broken, true);
  }
}

export const isAbort = (error: unknown) => error instanceof DOMException && error.name === "AbortError";

async function quietly(work: Promise<unknown>) {
  try {
    await work;
  } catch (error) {
    complain(error);
  }
}

/* ---- reading everything, at the start and whenever the service is back ---- */

export const loadModel = async () => (model.value = (await read<{ models: Model[] }>("/v1/models")).models[0] ?? null);
export const loadPacks = async () => (packs.value = (await read<{ packs: Pack[] }>("/v1/packs")).packs);
export const loadPeople = async () => (people.value = (await read<{ subjects: Subject[] }>("/v1/subjects?limit=100")).subjects);

async function loadLive() {
  const lists = ["queued", "running"].map((status) => read<{ jobs: Job[] }>(`/v1/jobs?status=${status}&limit=50`));
  for (const { jobs } of await Promise.all(lists)) for (const job of jobs) if (!job.batch_id) watch(job);
  batches.value = (await read<{ batches: Batch[] }>("/v1/batches?limit=20")).batches;
  for (const batch of batches.value) if (!isOver(batch)) void watchBatch(batch.id);
}

export function startReading() {
  effect(() => {
    revision.value;
    for (const load of [loadPeople, loadModel, loadPacks, loadLive]) void quietly(load());
  });
}

export const reloadPerson = async (id: string) => put(await read<Subject>(`/v1/subjects/${id}`));

/** A person as the service has just told of it, at its place in the list. */
export function put(subject: Subject) {
  const others = (people.value ?? []).filter((each) => each.id !== subject.id);
  people.value = [subject, ...others].sort((one, other) => (one.id < other.id ? 1 : -1));
}

/* ---- jobs ---- */

const asked = (): Record<string, { prompt: string; count: number }> => JSON.parse(sessionStorage.getItem("hdb-asked") ?? "{}");

function remember(id: string, prompt: string, count: number) {
  const entries = Object.entries({ ...asked(), [id]: { prompt, count } }).slice(-60);
  sessionStorage.setItem("hdb-asked", JSON.stringify(Object.fromEntries(entries)));
}

const ended = signal<{ job: Job; at: number } | null>(null);
/** Called with each job that ends while the page is there. */
export function onEnd(call: (job: Job) => void): () => void {
  let last = 0;
  return effect(() => {
    const value = ended.value;
    if (value && value.at > last) {
      last = value.at;
      call(value.job);
    }
  });
}

const following = new Map<string, () => void>();

/** Follow a job until it is over. */
export function watch(job: Job) {
  const known = asked()[job.id];
  update(job, known?.prompt ?? "", known?.count ?? 1);
  if (following.has(job.id)) return;
  following.set(
    job.id,
    follow(job.id, {
      onEvent: (event) => apply(job.id, event),
      onJob: (found) => (found ? finishOr(found) : forget(job.id)),
    }),
  );
}

function update(job: Job, prompt?: string, count?: number) {
  const before = live.value[job.id];
  live.value = { ...live.value, [job.id]: { job, prompt: prompt ?? before?.prompt ?? "", count: count ?? before?.count ?? 1 } };
}

function apply(id: string, event: JobEvent) {
  const known = live.value[id]?.job;
  if (!known) return;
  if (event.type === "deleted") return forget(id);
  if (event.job) return finishOr(event.job);
  const { status, stage, step, total, attempt, progress, seconds_left } = event;
  const position = status === "queued" ? known.position : null;
  update({ ...known, status, stage, step, total, attempt, progress, seconds_left, position, preview: event.preview ?? known.preview } as Job);
}

function finishOr(job: Job) {
  if (job.status === "queued" || job.status === "running") return update(job);
  following.get(job.id)?.();
  following.delete(job.id);
  if (job.status === "succeeded" || job.status === "canceled") void settle(job);
  else {
    update(job);
    void settle(job);
  }
}

/** What follows from the end of a job is read first, so that nothing disappears between the two. */
async function settle(job: Job) {
  if (job.kind === "personalize") await quietly(reloadPerson(job.subject_id));
  ended.value = { job, at: performance.now() };
  if (job.kind === "personalize" || job.status === "canceled") forget(job.id);
}

export function forget(id: string) {
  following.get(id)?.();
  following.delete(id);
  const { [id]: _, ...others } = live.value;
  live.value = others;
}

export async function cancelJob(id: string) {
  try {
    await send("POST", `/v1/jobs/${id}/cancel`);
  } catch (error) {
    if (!(error instanceof Refused && error.problem.status === 409)) complain(error);
  }
}

/** Ask for pictures; the job, or null when it was refused, which was said. */
export async function generate(body: Generation, onWait: (problem: Problem, seconds: number) => void): Promise<Job | null> {
  const once = newKey();
  try {
    const job = await patiently(() => send<Job>("POST", "/v1/generations", { json: body, once }), onWait);
    remember(job.id, body.prompt, body.n ?? 1);
    watch(job);
    return job;
  } catch (error) {
    complain(error);
    return null;
  }
}

/* ---- batches ---- */

export const isOver = (batch: Batch) => batch.status === "completed" || batch.status === "canceled";
export const batchSubjects = (id: string): string[] => JSON.parse(sessionStorage.getItem(`hdb-${id}`) ?? "[]");
export const remaining = (batch: Batch) => (isOver(batch) ? 0 : batch.counts.queued + batch.counts.running);
const watchedBatches = new Set<string>();

export async function watchBatch(id: string) {
  if (watchedBatches.has(id)) return;
  watchedBatches.add(id);
  try {
    for (;;) {
      const batch = await read<Batch>(`/v1/batches/${id}`);
      const before = batches.value.find((each) => each.id === id);
      const others = batches.value.filter((each) => each.id !== id);
      batches.value = [batch, ...others].sort((one, other) => (one.id < other.id ? 1 : -1));
      if (before?.counts.succeeded !== batch.counts.succeeded) batchGrew.value += 1;
      if (isOver(batch)) return;
      await new Promise((done) => setTimeout(done, 700));
    }
  } catch (error) {
    if (error instanceof Refused) batches.value = batches.value.filter((each) => each.id !== id);
  } finally {
    watchedBatches.delete(id);
  }
}

/** Counts up when a batch has more pictures than before. */
export const batchGrew = signal(0);

export async function runBatch(prompts: string[], subjectIds: string[], defaults: object, onWait: (problem: Problem, seconds: number) => void) {
  const once = newKey();
  const json = { prompts, subject_ids: subjectIds, defaults };
  try {
    const batch = await patiently(() => send<Batch>("POST", "/v1/batches", { json, once }), onWait);
    sessionStorage.setItem(`hdb-${batch.id}`, JSON.stringify(subjectIds));
    batches.value = [batch, ...batches.value];
    void watchBatch(batch.id);
    return batch;
  } catch (error) {
    complain(error);
    return null;
  }
}

export const isOffline = computed(() => !isReachable.value);
export type { Picture };
