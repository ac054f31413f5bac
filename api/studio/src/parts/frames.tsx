/** Frames on the contact sheet: a picture that is there, or the place of one that is being made. Both are one place. */
import { useRef } from "preact/hooks";
import { imageOf } from "../api/http";
import type { Job, Picture } from "../api/types";
import { batches, batchSubjects, forget, isOver, live, remaining, type Live } from "../state/store";
import { inOrder } from "../state/gallery";
import { openPicture } from "../state/route";
import { texts } from "../texts";
import { percent } from "./basics";
import type { Cell } from "./grid";
import { Develop } from "./media";

export interface FrameCell extends Cell {
  picture: Picture | null;
  making: Live | null;
}

/** A picture's cell is one object for as long as the picture is: the grid draws again only what has changed. */
const cellOf = new WeakMap<Picture, FrameCell>();

function shown(picture: Picture): FrameCell {
  let cell = cellOf.get(picture);
  if (!cell) cellOf.set(picture, (cell = { key: picture.id, picture, making: null }));
  return cell;
}

const idOf = (job: Job, index: number) => `img_${job.id.slice(4)}-${index}`;

/** What is there and what will be, in the order of the list: a picture takes the very place that was kept for it. */
export function cellsOf(pictures: Picture[], matches: (subjectIds: string[]) => boolean): FrameCell[] {
  const making = new Map<string, FrameCell>();
  for (const each of Object.values(live.value)) {
    if (each.job.kind !== "generate" || each.job.batch_id || !matches(each.job.subject_ids ?? [])) continue;
    for (let index = 0; index < (each.job.status === "failed" ? 1 : each.count); index += 1) {
      const key = idOf(each.job, index);
      making.set(key, { key, picture: null, making: each });
    }
  }
  for (const picture of making.size ? pictures : []) making.delete(picture.id);
  const there = pictures.map(shown);
  const all = making.size ? [...there, ...making.values()].sort((one, other) => inOrder(one.key, other.key)) : there;
  const kept = batches.value.filter((each) => !isOver(each) && matches(batchSubjects(each.id)));
  const waiting = kept.flatMap((each) => Array.from({ length: remaining(each) }, (_, index) => ({ key: `${each.id}-${index}`, picture: null, making: null })));
  return waiting.length ? [...waiting, ...all] : all;
}

export function Frame({ cell, isFocusable }: { cell: FrameCell; isFocusable: boolean }) {
  const { picture, making } = cell;
  const wasAwaited = useRef(false);
  wasAwaited.current ||= !picture;
  const isFailed = making?.job.status === "failed";
  if (picture) {
    return (
      <button type="button" class="frame" tabIndex={isFocusable ? 0 : -1} onClick={() => openPicture(picture.id)}>
        <Develop src={imageOf(picture.id, 256)} alt={picture.prompt ?? texts.gallery.noPrompt} isAwaited={wasAwaited.current} />
        <Edge left={percent(picture.likeness)} leftIs={texts.picture.likeness} right={String(picture.seed)} rightIs={texts.picture.seed} />
      </button>
    );
  }
  if (isFailed) {
    return (
      <div class="frame is-failed">
        <span class="develop">
          <span class="why">{making.job.error?.detail ?? texts.gallery.failed}</span>
        </span>
        <button type="button" class="edge-button" tabIndex={isFocusable ? 0 : -1} onClick={() => forget(making.job.id)}>
          {texts.gallery.retry}
        </button>
      </div>
    );
  }
  return <Making making={making} isFocusable={isFocusable} />;
}

function Making({ making, isFocusable }: { making: Live | null; isFocusable: boolean }) {
  const { status, step, total } = making?.job ?? {};
  const isRunning = status === "running" && !!total;
  const text = isRunning ? `${step}/${total}` : status === "running" ? texts.gallery.making : texts.gallery.queued;
  return (
    <button type="button" class="frame is-making" tabIndex={isFocusable ? 0 : -1} aria-disabled="true">
      <span class="develop" />
      <span class="visually-hidden">{`${texts.gallery.making}${making?.prompt ? `: ${making.prompt}` : ""}`} </span>
      <Edge left={text} right="" />
    </button>
  );
}

interface EdgeProps {
  left: string;
  right: string;
  /** What these figures are, for those who hear them. */
  leftIs?: string;
  rightIs?: string;
}

/** What is printed on the edge of the film. */
export function Edge({ left, right, leftIs, rightIs }: EdgeProps) {
  return (
    <span class="edge">
      <span>
        {left && leftIs && <span class="visually-hidden">{leftIs} </span>}
        {left}
      </span>
      <span>
        {right && rightIs && <span class="visually-hidden">{rightIs} </span>}
        {right}
      </span>
    </span>
  );
}
