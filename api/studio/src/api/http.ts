/** Requests to the service: problems as errors, a key for this tab, and whether the service is there at all. */
import { computed, signal } from "@preact/signals";
import type { Problem } from "./types";

/** The API key; it lives as long as the tab. */
export const key = signal(sessionStorage.getItem("hdb-key") ?? "");
/** Whether it is a test key: pictures are fixed then, and free. */
export const isTest = computed(() => key.value.startsWith("hdb_test_"));
/** Why a key is asked for; null while none is. */
export const keyAsked = signal<"missing" | "wrong" | "asked" | null>(null);
export const isReachable = signal(true);
/** Counts the times the service came back, or another key was given: what is on the page is read anew then. */
export const revision = signal(0);

export class Refused extends Error {
  constructor(
    readonly problem: Problem,
    readonly retryAfter: number,
  ) {
    super(problem.detail);
  }
}

/** No answer came: the service is gone, or the network. */
export class Unreachable extends Error {}

export function setKey(value: string) {
  key.value = value;
  if (value) sessionStorage.setItem("hdb-key", value);
  else sessionStorage.removeItem("hdb-key");
  keyAsked.value = null;
  revision.value += 1;
}

/** Where the service is: where this page is, which need not be at the root of its host. */
const BASE = new URL(".", location.href).pathname;
export const at = (path: string) => BASE + path.replace(/^\//, "");
/** A picture's path under the service; `size` makes it a thumbnail. The addresses in answers may be public ones. */
export const imageOf = (id: string, size = 0) => `/v1/images/${id}${size ? `?size=${size}` : ""}`;

export interface Options {
  json?: unknown;
  form?: FormData;
  headers?: Record<string, string>;
  signal?: AbortSignal | null;
  /** A new Idempotency-Key: the request may be sent again without making things twice. */
  once?: string;
}

export async function request(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  const used = key.value;
  if (used) headers.set("Authorization", `Bearer ${used}`);
  if (options.once) headers.set("Idempotency-Key", options.once);
  if (options.json !== undefined) headers.set("Content-Type", "application/json");
  const body = options.form ?? (options.json === undefined ? null : JSON.stringify(options.json));
  let answer: Response;
  try {
    answer = await fetch(at(path), { method, headers, body, signal: options.signal ?? null, cache: "no-cache" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    lost();
    throw new Unreachable();
  }
  isReachable.value = true;
  if (answer.ok || answer.status === 304) return answer;
  throw refusal(answer, await problemOf(answer), used);
}

export async function read<T>(path: string, options: Options = {}): Promise<T> {
  return (await request("GET", path, options)).json() as Promise<T>;
}

export async function send<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await request(method, path, options);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

function refusal(answer: Response, problem: Problem, used: string): Refused {
  // What was asked with an earlier key says nothing of the one that is in use.
  if (answer.status === 401 && used === key.value) keyAsked.value = used ? "wrong" : "missing";
  return new Refused(problem, Number(answer.headers.get("Retry-After") ?? 0));
}

async function problemOf(answer: Response): Promise<Problem> {
  try {
    const found = (await answer.json()) as Problem;
    if (found.code) return found;
  } catch {
    // Not of the service: a proxy's page, most likely.
  }
  const request_id = answer.headers.get("X-Request-Id") ?? "";
  const text = `${answer.status} ${answer.statusText}`;
  return { type: "", title: text, status: answer.status, detail: text, code: "unknown", retryable: false, request_id, field: null, errors: null, faces: null };
}

let isWatching = false;

/** The service has gone: look for it until it is back. */
function lost() {
  isReachable.value = false;
  if (isWatching) return;
  isWatching = true;
  const look = async (pause: number) => {
    try {
      const answer = await fetch(at("/readyz?exclude=workers"), { cache: "no-store" });
      if (answer.ok) {
        isWatching = false;
        isReachable.value = true;
        revision.value += 1;
        return;
      }
    } catch {
      // still away
    }
    setTimeout(look, pause, Math.min(pause * 1.5, 5000));
  };
  setTimeout(look, 500, 700);
}

export const newKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

/** Try again what is refused for now (the queue is full, too many requests), and say how long it will wait. */
export async function patiently<T>(attempt: () => Promise<T>, onWait: (problem: Problem, seconds: number) => void): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      const waits = error instanceof Refused && error.problem.status === 429 && tries < 20;
      if (!waits) throw error;
      for (let left = Math.max(1, Math.ceil(error.retryAfter)); left > 0; left -= 1) {
        onWait(error.problem, left);
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
  }
}
