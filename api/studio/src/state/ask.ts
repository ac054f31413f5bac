/** What is being asked for: it stays when one goes elsewhere, and can be filled from a picture. */
import { signal } from "@preact/signals";
import type { Generation, Picture, Subject } from "../api/types";

export interface Wish {
  prompt: string;
  n: number;
  seed: string;
  steps: string;
  guidance: string;
  strength: number;
  size: string;
  negative: string;
  stage: "refined" | "preview";
  /** Others that are blended in, and how much of each; the person itself has 1. */
  blend: { id: string; weight: number }[];
  own: number;
}

export const fresh = (noun: string | null | undefined): Wish => ({ prompt: `a [V] ${noun ?? "face"}`, n: 4, seed: "", steps: "", guidance: "", strength: 1, size: "", negative: "", stage: "refined", blend: [], own: 1 });

const wishes = signal<Record<string, Wish>>({});

export const wishOf = (subject: Subject): Wish => wishes.value[subject.id] ?? fresh(subject.class_noun);

export function change(subject: Subject, changes: Partial<Wish>) {
  wishes.value = { ...wishes.value, [subject.id]: { ...wishOf(subject), ...changes } };
}

/** As it goes to the service; what is left empty is left out. */
export function bodyOf(subject: Subject, wish: Wish, isPreview: boolean): Generation {
  const side = Number(wish.size);
  const others = wish.blend.filter((each) => each.weight > 0);
  const whom = others.length ? { blend: [{ subject_id: subject.id, weight: wish.own }, ...others.map(({ id, weight }) => ({ subject_id: id, weight }))] } : { subject_id: subject.id };
  const body: Record<string, unknown> = { ...whom, prompt: wish.prompt.trim() };
  if (wish.n !== 1) body.n = wish.n;
  if (wish.seed !== "") body.seed = Number(wish.seed);
  if (wish.steps !== "") body.steps = Number(wish.steps);
  if (wish.guidance !== "") body.guidance_scale = Number(wish.guidance);
  if (wish.strength !== 1) body.strength = wish.strength;
  if (side) Object.assign(body, { width: side, height: side });
  if (wish.negative.trim()) body.negative_prompt = wish.negative.trim();
  if (isPreview || wish.stage === "preview") body.stage = "preview";
  return body as unknown as Generation;
}

/** The request that made a picture, for one picture of that seed. */
export function bodyOfPicture(picture: Picture): Generation {
  const [subject_id] = picture.subject_ids;
  const body: Record<string, unknown> = { subject_id, prompt: picture.prompt ?? "", seed: picture.seed };
  for (const name of ["steps", "guidance_scale", "strength", "negative_prompt"] as const) if (picture[name]) body[name] = picture[name];
  return body as unknown as Generation;
}

/** Ask like this picture: with its seed, or with a new one each time. */
export function askLike(picture: Picture, keepSeed: boolean) {
  const [id = ""] = picture.subject_ids;
  const wish: Wish = {
    ...fresh(null),
    prompt: picture.prompt ?? "",
    n: keepSeed ? 1 : 4,
    seed: keepSeed ? String(picture.seed) : "",
    steps: picture.steps ? String(picture.steps) : "",
    guidance: picture.guidance_scale ? String(picture.guidance_scale) : "",
    strength: picture.strength ?? 1,
    negative: picture.negative_prompt ?? "",
    blend: picture.subject_ids.slice(1).map((other) => ({ id: other, weight: 1 })),
  };
  wishes.value = { ...wishes.value, [id]: wish };
}

const alone = (word: string) => new RegExp(`,? *(?<![\\w-])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\w-])`, "i");
/** Whether a prompt has a word, and not only as a part of another one. */
export const hasWord = (prompt: string, word: string) => alone(word).test(prompt);
/** The prompt with the word, or without it where it was there. */
export const turnWord = (prompt: string, word: string) => (hasWord(prompt, word) ? prompt.replace(alone(word), "") : `${prompt}, ${word}`);
