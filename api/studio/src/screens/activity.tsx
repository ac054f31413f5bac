/** Activity: jobs and batches with their progress, and what was used. */
import { useEffect, useState } from "preact/hooks";
import { read, request, revision, send } from "../api/http";
import type { Batch, Job, Usage } from "../api/types";
import { Empty, Progress, save, when } from "../parts/basics";
import { link } from "../state/route";
import { batches, cancelJob, complain, isOver, live, nameOf, onEnd, people, remaining } from "../state/store";
import { duration, texts } from "../texts";

export function Activity() {
  const [jobs, setJobs] = useState<Job[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [usage, setUsage] = useState<Usage | null>(null);
  const again = revision.value;
  const load = (cursor: string) =>
    read<{ jobs: Job[]; next_cursor: string | null }>(`/v1/jobs?limit=30&cursor=${cursor}`).then((page) => {
      setJobs((before) => (cursor ? [...(before ?? []), ...page.jobs] : page.jobs));
      setNext(page.next_cursor);
    }, complain);
  useEffect(() => {
    void load("");
    read<Usage>("/v1/usage").then(setUsage, complain);
  }, [again]);
  useEffect(() => onEnd(() => void load("")), []);
  return (
    <div class="page">
      <div class="bar">
        <h1>{texts.activity.title}</h1>
      </div>
      {usage && <Used usage={usage} />}
      {batches.value.length > 0 && (
        <section aria-labelledby="batches">
          <h2 id="batches">{texts.activity.batches}</h2>
          <ul class="lines" role="list">
            {batches.value.map((each) => (
              <BatchLine key={each.id} batch={each} />
            ))}
          </ul>
        </section>
      )}
      <section aria-labelledby="jobs">
        <h2 id="jobs">{texts.activity.jobs}</h2>
        {jobs?.length === 0 && <Empty title={texts.activity.empty} />}
        {jobs === null && <div class="is-loading" aria-busy="true" />}
        <ul class="lines" role="list">
          {jobs?.map((each) => (
            <JobLine key={each.id} job={live.value[each.id]?.job ?? each} />
          ))}
        </ul>
        {next && (
          <button type="button" onClick={() => void load(next)}>
            {texts.more}
          </button>
        )}
      </section>
    </div>
  );
}

function Used({ usage }: { usage: Usage }) {
  const jobs = Object.values(usage.total.jobs).flatMap((states) => Object.values(states)).reduce((sum, each) => sum + each, 0);
  const figures: [string, string][] = [
    [texts.activity.usagePictures, usage.total.pictures.toLocaleString("en")],
    [texts.activity.usageJobs, jobs.toLocaleString("en")],
    [texts.activity.usageSeconds, duration(usage.total.seconds)],
  ];
  return (
    <section aria-labelledby="usage">
      <h2 id="usage">{texts.activity.usage}</h2>
      <dl class="figures">
        {figures.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function JobLine({ job }: { job: Job }) {
  const subject = people.value?.find((each) => each.id === job.subject_id);
  const isLive = job.status === "queued" || job.status === "running";
  const what = `${texts.activity.kinds[job.kind]}: ${nameOf(subject)}`;
  const took = job.seconds?.total;
  return (
    <li class="line">
      <a href={link("person", job.subject_id)}>{what}</a>
      <span class={`state is-${job.status}`}>
        {texts.activity.status[job.status]}
        {job.status === "running" && job.total ? ` ${job.step}/${job.total}` : ""}
      </span>
      <span class="soft">{when(job.created_at)}</span>
      <span class="soft">{took ? duration(took) : job.images ? texts.pictures(job.images.length) : ""}</span>
      {isLive ? (
        <button type="button" class="plain" aria-label={texts.activity.cancel(what)} onClick={() => void cancelJob(job.id)}>
          {texts.cancel}
        </button>
      ) : (
        <span />
      )}
      {job.error && <span class="refusal whole">{job.error.detail}</span>}
    </li>
  );
}

function BatchLine({ batch }: { batch: Batch }) {
  const { total, failed, invalid } = batch.counts;
  const done = total - remaining(batch);
  const results = async () => {
    try {
      save(await (await request("GET", `/v1/batches/${batch.id}/results`)).blob(), `${batch.id}.jsonl`);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <li class="line">
      <span>{texts.activity.of(batch.counts.succeeded, total)}</span>
      <span class={`state is-${batch.status}`}>{texts.activity.status[batch.status]}</span>
      <span class="soft">{when(batch.created_at)}</span>
      <button type="button" class="plain" onClick={() => void results()}>
        {texts.activity.results}
      </button>
      {isOver(batch) ? (
        <span />
      ) : (
        <button type="button" class="plain" aria-label={texts.activity.cancel(texts.activity.batches)} onClick={() => void send("POST", `/v1/batches/${batch.id}/cancel`).catch(complain)}>
          {texts.cancel}
        </button>
      )}
      {!isOver(batch) && (
        <span class="whole">
          <Progress share={done / total} label={texts.watch.progress} />
        </span>
      )}
      {(failed > 0 || invalid > 0) && (
        <span class="refusal whole">
          {failed > 0 && texts.activity.failed(failed)} {invalid > 0 && texts.activity.invalid(invalid)}
        </span>
      )}
    </li>
  );
}
