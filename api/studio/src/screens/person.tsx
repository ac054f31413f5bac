/** A person: the picture that develops while it is learned, what to ask for, and what was made. */
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { read, Refused, revision } from "../api/http";
import type { Subject } from "../api/types";
import { Empty, percent } from "../parts/basics";
import { cellsOf, Frame } from "../parts/frames";
import { Grid } from "../parts/grid";
import { Watch } from "../parts/watch";
import { Gallery } from "../state/gallery";
import { link } from "../state/route";
import { batchGrew, complain, forget, live, nameOf, onEnd, people } from "../state/store";
import { texts } from "../texts";
import { Ask } from "./ask";

export function PersonScreen({ id }: { id: string }) {
  const listed = people.value?.find((each) => each.id === id) ?? null;
  const [found, setFound] = useState<Subject | null>(null);
  const [isGone, setGone] = useState(false);
  const again = revision.value;
  useEffect(() => {
    read<Subject>(`/v1/subjects/${id}`).then(setFound, (error) => (error instanceof Refused && error.problem.status === 404 ? setGone(true) : complain(error)));
  }, [id, again]);
  const subject = listed ?? found;
  const job = Object.values(live.value).find((each) => each.job.kind === "personalize" && each.job.subject_id === id)?.job ?? null;
  if (isGone && !listed) {
    return (
      <section class="page narrow">
        <h1>{texts.states.notFound}</h1>
        <a href={link("people")}>{texts.nav.people}</a>
      </section>
    );
  }
  if (!subject) return <section class="page narrow is-loading" aria-busy="true" aria-label={texts.loading} />;
  const isPreview = subject.status !== "ready";
  const canAsk = !isPreview || !!job?.preview || !!subject.preview_ready;
  return (
    <div class="page person">
      <section class="who" aria-labelledby="who">
        <Watch subject={subject} job={job} />
        <div class="who-said">
          <h1 id="who">{nameOf(subject)}</h1>
          <p class="facts">
            {subject.likeness != null && (
              <span>
                {texts.people.likeness} <b>{percent(subject.likeness)}</b>
              </span>
            )}
            {subject.weights && (
              <span>
                {texts.people.weights} <b>{texts.people.kilobytes(subject.weights.bytes)}</b>
              </span>
            )}
            {subject.photos_sent > 1 && <span>{texts.photos(subject.photos_sent)}</span>}
          </p>
        </div>
      </section>
      <div class="work">
        <Ask subject={subject} isPreview={isPreview} canAsk={canAsk} />
        <Made id={id} />
      </div>
    </div>
  );
}

function Made({ id }: { id: string }) {
  const gallery = useMemo(() => new Gallery({ subject_id: id }), [id]);
  const again = revision.value;
  useEffect(() => void gallery.more().catch(complain), [gallery]);
  useEffect(() => void gallery.refresh().catch(complain), [gallery, again, batchGrew.value]);
  useEffect(
    () =>
      onEnd((job) => {
        if (job.kind === "generate" && job.subject_ids?.includes(id)) void settled(gallery, job.id, job.status === "failed");
      }),
    [gallery],
  );
  const more = useCallback(() => void gallery.more().catch(complain), [gallery]);
  const cells = cellsOf(gallery.pictures.value, (subjects) => subjects.includes(id));
  const isEmpty = !cells.length && gallery.state.value === "all";
  return (
    <section class="made" aria-label={texts.gallery.label}>
      {isEmpty ? <Empty title={texts.gallery.emptyPerson} /> : <Grid cells={cells} label={texts.gallery.label} onNearEnd={more} render={(cell, isFocusable) => <Frame cell={cell} isFocusable={isFocusable} />} />}
    </section>
  );
}

/** The pictures first, and only then the place that was kept for them: nothing is missing in between. */
export async function settled(gallery: Gallery, jobId: string, hasFailed: boolean) {
  if (hasFailed) return;
  try {
    await gallery.add(jobId);
  } catch (error) {
    complain(error);
  }
  forget(jobId);
}
