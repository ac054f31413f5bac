/** Photos that were chosen and not sent yet: they are in this page's memory only, and let go when they were sent. */
import { computed, signal } from "@preact/signals";
import { isReachable, newKey, patiently, send } from "../api/http";
import type { PhotoCheck, PhotosChecked, Problem, Subject } from "../api/types";
import { texts } from "../texts";
import { complain, crops, isAbort, put, say, watch } from "./store";
import { read } from "../api/http";
import type { Job } from "../api/types";

export const MOST_PHOTOS = 8;

export interface Chosen {
  id: number;
  file: File;
  url: string;
  /** null while it is being checked. */
  check: PhotoCheck | null;
  /** Of several faces, the one that was chosen by hand. */
  face: number | null;
}

export const chosen = signal<Chosen[]>([]);
export const canBegin = computed(() => chosen.value.length > 0 && chosen.value.every((each) => each.check?.accepted));
export const hasRefused = computed(() => chosen.value.some((each) => each.check && !each.check.accepted));
let numbers = 0;
let checking: AbortController | null = null;

export function addPhotos(files: File[]) {
  if (!files.length) return say(texts.start.notPictures, true);
  if (chosen.value.length + files.length > MOST_PHOTOS) say(texts.start.tooMany, true);
  const added = files.slice(0, MOST_PHOTOS - chosen.value.length).map((file) => ({ id: (numbers += 1), file, url: URL.createObjectURL(file), check: null, face: null }));
  chosen.value = [...chosen.value, ...added];
  void check();
}

export function removePhoto(id: number) {
  for (const each of chosen.value) if (each.id === id) URL.revokeObjectURL(each.url);
  chosen.value = chosen.value.filter((each) => each.id !== id);
  void check();
}

export function letGo() {
  checking?.abort();
  for (const each of chosen.value) URL.revokeObjectURL(each.url);
  chosen.value = [];
}

export function chooseFace(id: number, face: number) {
  chosen.value = chosen.value.map((each) => (each.id === id ? { ...each, face } : each));
  void check();
}

const faces = () => chosen.value.map((each) => each.face ?? "").join(";");

/** All of them again: photos are also held against each other. */
async function check() {
  checking?.abort();
  const stop = (checking = new AbortController());
  const asked = chosen.value;
  if (!asked.length) return;
  const form = new FormData();
  for (const each of asked) form.append("photo", each.file, "photo");
  if (faces().replaceAll(";", "")) form.append("face", faces());
  try {
    const found = await patiently(() => send<PhotosChecked>("POST", "/v1/photos/check", { form, signal: stop.signal }), () => {});
    if (stop.signal.aborted) return;
    const checks = new Map(asked.map((each, index) => [each.id, found.photos[index] ?? null]));
    chosen.value = chosen.value.map((each) => ({ ...each, check: checks.get(each.id) ?? each.check }));
  } catch (error) {
    if (isAbort(error)) return;
    complain(error);
    if (isReachable.value) letGo();
  }
}

/** When the service is back, what was not checked is. */
export const checkAgain = () => {
  if (chosen.value.some((each) => !each.check)) void check();
};

export interface Person {
  name: string;
  keep: boolean;
  /** The subject that the photos are added to; empty: a new one. */
  addTo: string;
}

/** Send the photos and let them go. The subject's id, or null when they were refused, which was said. */
export async function begin(person: Person, onWait: (problem: Problem, seconds: number) => void): Promise<string | null> {
  const form = new FormData();
  for (const each of chosen.value) form.append("photo", each.file, "photo");
  form.append("consent", "true");
  if (faces().replaceAll(";", "")) form.append("face", faces());
  if (person.keep) form.append("keep_photos", "true");
  if (person.name && !person.addTo) form.append("name", person.name);
  const path = person.addTo ? `/v1/subjects/${person.addTo}/photos` : "/v1/subjects";
  const once = newKey();
  try {
    const subject = await patiently(() => send<Subject>("POST", path, { form, once }), onWait);
    const crop = chosen.value[0]?.check?.crop;
    if (crop) crops.set(subject.id, crop);
    for (const warning of subject.warnings ?? []) say(warning.message);
    letGo();
    watch(await read<Job>(`/v1/jobs/${subject.job_id}`));
    put(subject);
    return subject.id;
  } catch (error) {
    complain(error);
    return null;
  }
}
