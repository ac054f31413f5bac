/** Follow a job: server-sent events over fetch, which can send a key and goes on where it broke off; else by reading. */
import { at, key, read, Refused, Unreachable } from "./http";
import type { Job, JobEvent } from "./types";

const LAST = new Set(["succeeded", "failed", "canceled", "deleted"]);
/** Streams at the same time: a browser has six connections to a host, and pictures need some. */
const MOST_STREAMS = 2;
let streams = 0;

export interface Follower {
  onEvent(event: JobEvent): void;
  /** The job as it was read where there is no stream; null: it is not there any more. */
  onJob(job: Job | null): void;
}

/** Follow the job until it is over, or until the function that is returned is called. */
export function follow(jobId: string, follower: Follower): () => void {
  const stop = new AbortController();
  void run(jobId, follower, stop.signal);
  return () => stop.abort();
}

async function run(jobId: string, follower: Follower, stop: AbortSignal) {
  let seen = "";
  let failures = 0;
  while (!stop.aborted) {
    if (streams < MOST_STREAMS && failures < 3) {
      streams += 1;
      try {
        for await (const { id, event } of stream(jobId, seen, stop)) {
          seen = id;
          failures = 0;
          follower.onEvent(event);
          if (LAST.has(event.type)) return;
        }
      } catch (error) {
        if (error instanceof Refused && error.problem.status === 404) return follower.onJob(null);
        failures += 1;
      } finally {
        streams -= 1;
      }
    } else {
      failures = Math.max(0, failures - 1);
      if (await poll(jobId, follower, stop)) return;
    }
    await pause(Math.min(400 * 2 ** failures, 4000), stop);
  }
}

/** One read of the job; whether it is over. */
async function poll(jobId: string, follower: Follower, stop: AbortSignal): Promise<boolean> {
  try {
    const job = await read<Job>(`/v1/jobs/${jobId}`, { signal: stop });
    if (!stop.aborted) follower.onJob(job);
    return LAST.has(job.status);
  } catch (error) {
    if (error instanceof Refused && error.problem.status === 404) {
      follower.onJob(null);
      return true;
    }
    return stop.aborted;
  }
}

async function* stream(jobId: string, seen: string, stop: AbortSignal): AsyncGenerator<{ id: string; event: JobEvent }> {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (key.value) headers.Authorization = `Bearer ${key.value}`;
  if (seen) headers["Last-Event-ID"] = seen;
  let answer: Response;
  try {
    answer = await fetch(at(`/v1/jobs/${jobId}/events`), { headers, signal: stop, cache: "no-store" });
  } catch {
    throw new Unreachable();
  }
  if (!answer.ok) throw new Refused(await answer.json(), 0);
  if (answer.status === 204 || !answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
      const data = fields.get("data");
      if (data) yield { id: fields.get("id") ?? seen, event: JSON.parse(data) as JobEvent };
    }
  }
}

function pause(milliseconds: number, stop: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    stop.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
