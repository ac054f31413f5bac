/** The frame in which a person appears: place in the queue, stage, step, time left; previews develop over each other. */
import { useState } from "preact/hooks";
import { imageOf } from "../api/http";
import type { Job, Subject } from "../api/types";
import { link } from "../state/route";
import { cancelJob, nameOf } from "../state/store";
import { texts } from "../texts";
import { percent, Progress } from "./basics";
import { Edge } from "./frames";
import { Develop } from "./media";

export function Watch({ subject, job }: { subject: Subject; job: Job | null }) {
  const name = nameOf(subject);
  const [isStopping, setStopping] = useState(false);
  const share = job?.status === "running" ? (job.progress ?? null) : null;
  const left = job?.seconds_left ?? null;
  const picture = job?.preview ?? subject.preview ?? null;
  const isOver = subject.status === "failed" || subject.status === "canceled";
  return (
    <div class="watch">
      <div class={`film portrait ${job ? "is-making" : ""}`}>
        <Develop src={picture ? imageOf(picture.id) : null} alt={texts.watch.currentAlt(name)} />
        {!picture && <span class="waiting">{isOver ? texts.watch.failed : texts.watch.waiting}</span>}
        <Edge left={percent(subject.likeness)} right={picture ? `${picture.width}` : ""} />
      </div>
      {job && (
        <div class="stage">
          <Progress share={share} label={texts.watch.progress} />
          <p aria-live="polite">
            <b>{job.status === "queued" ? texts.watch.queued(job.position ?? 0) : (texts.watch.stages[job.stage ?? ""] ?? job.stage)}</b>
            {job.total && job.stage === "finetune" ? <span aria-hidden="true">{texts.watch.step(job.step ?? 0, job.total)}</span> : null}
            {job.attempt > 1 && <span>{texts.watch.attempt(job.attempt)}</span>}
          </p>
          <p class="row between">
            <span class="soft" aria-hidden="true">
              {left !== null && job.status === "running" ? texts.watch.left(left) : " "}
            </span>
            <button type="button" class="plain" disabled={isStopping} onClick={() => (setStopping(true), void cancelJob(job.id))}>
              {isStopping ? texts.watch.canceling : texts.watch.cancel}
            </button>
          </p>
        </div>
      )}
      {!job && isOver && (
        <div class="stage">
          <p class="refusal" role="alert">
            <b>{subject.status === "failed" ? texts.watch.failed : texts.watch.canceled}.</b> {subject.error?.detail}
          </p>
          <a class="button" href={link("new", subject.id)}>
            {texts.watch.again}
          </a>
        </div>
      )}
    </div>
  );
}
