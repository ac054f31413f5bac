/** People: what is known of each, their weights, more photos, and their deletion with its receipt. */
import { useState } from "preact/hooks";
import { imageOf, request, send } from "../api/http";
import type { Receipt, Subject } from "../api/types";
import { CopyButton, Dialog, Empty, Icon, percent, save, when } from "../parts/basics";
import { Img } from "../parts/media";
import { link } from "../state/route";
import { complain, live, loadPeople, nameOf, people } from "../state/store";
import { texts } from "../texts";

export function People() {
  const [doomed, setDoomed] = useState<Subject | null>(null);
  const found = people.value;
  return (
    <div class="page">
      <div class="bar">
        <h1>{texts.people.title}</h1>
      </div>
      {found === null && <div class="is-loading" aria-busy="true" aria-label={texts.loading} role="status" />}
      {found?.length === 0 && (
        <Empty title={texts.people.empty}>
          <p class="soft">{texts.people.emptyLead}</p>
          <a class="button primary" href={link("new")}>
            {texts.start.title}
          </a>
        </Empty>
      )}
      <ul class="people" role="list">
        {found?.map((each) => (
          <PersonCard key={each.id} subject={each} onDelete={() => setDoomed(each)} />
        ))}
      </ul>
      {doomed && <Delete subject={doomed} onClose={() => setDoomed(null)} />}
    </div>
  );
}

function PersonCard({ subject, onDelete }: { subject: Subject; onDelete(): void }) {
  const name = nameOf(subject);
  const job = Object.values(live.value).find((each) => each.job.kind === "personalize" && each.job.subject_id === subject.id)?.job;
  const picture = job?.preview ?? subject.preview;
  const expires = (subject as Subject & { expires_at?: string | null }).expires_at;
  const facts: [string, string][] = [
    [texts.people.likeness, percent(subject.likeness)],
    [texts.people.weights, subject.weights ? texts.people.kilobytes(subject.weights.bytes) : ""],
    [texts.people.photos, String(subject.photos_sent)],
    [texts.people.created, when(subject.created_at)],
    [texts.people.expires, expires ? when(expires) : ""],
  ];
  return (
    <li class="person-card">
      <a class="film" href={link("person", subject.id)} tabIndex={-1} aria-hidden="true">
        {picture ? <Img src={imageOf(picture.id)} alt="" /> : <span class="blank" />}
        <span class="edge">
          <span>{percent(subject.likeness)}</span>
        </span>
      </a>
      <div class="person-said">
        <h2>
          <a href={link("person", subject.id)}>{name}</a>
        </h2>
        {subject.status !== "ready" && <p class={subject.status === "failed" ? "refusal" : "soft"}>{texts.people.status[subject.status]}</p>}
        {subject.refining && <p class="soft">{texts.people.refining}</p>}
        <dl class="facts-list">
          {facts
            .filter(([, value]) => value)
            .map(([label, value]) => (
              <div key={label}>
                <dt>{label}</dt>
                <dd>{value}</dd>
              </div>
            ))}
        </dl>
        <div class="row">
          {subject.weights && <Weights subject={subject} />}
          <a class="button" href={link("new", subject.id)} aria-label={`${texts.people.addPhotos}: ${name}`}>
            {texts.people.addPhotos}
          </a>
          <button type="button" class="ghost square" aria-label={`${texts.people.delete}: ${name}`} onClick={onDelete}>
            <Icon name="trash" />
          </button>
        </div>
      </div>
    </li>
  );
}

function Weights({ subject }: { subject: Subject }) {
  const download = async (format: string) => {
    try {
      const answer = await request("GET", `/v1/subjects/${subject.id}/weights?format=${format}`);
      save(await answer.blob(), `${subject.id}.${format === "lidb" ? "lidb" : `${format}.safetensors`}`);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <select
      aria-label={`${texts.people.download}: ${nameOf(subject)}`}
      value=""
      onChange={(event) => {
        const format = event.currentTarget.value;
        event.currentTarget.value = "";
        if (format) void download(format);
      }}
    >
      <option value="">{texts.people.download}</option>
      {Object.entries(texts.people.formats).map(([format, text]) => (
        <option key={format} value={format}>
          {text}
        </option>
      ))}
    </select>
  );
}

function Delete({ subject, onClose }: { subject: Subject; onClose(): void }) {
  const [receipt, setReceipt] = useState<Receipt | null>(null);
  const [isGoing, setGoing] = useState(false);
  const erase = async () => {
    setGoing(true);
    try {
      setReceipt(await send<Receipt>("DELETE", `/v1/subjects/${subject.id}`));
      await loadPeople();
    } catch (error) {
      complain(error);
      onClose();
    }
    setGoing(false);
  };
  if (receipt) {
    const fields: [string, string][] = [
      [texts.people.receiptFields.id, receipt.subject_id],
      [texts.people.receiptFields.at, receipt.deleted_at],
      [texts.people.receiptFields.jobs, texts.people.receiptJobs(receipt.job_ids.length)],
    ];
    return (
      <Dialog title={texts.people.receipt} class="small" onClose={onClose}>
        <p>{texts.people.receiptLead}</p>
        <dl class="receipt">
          {fields.map(([label, value]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        <div class="row">
          <CopyButton text={JSON.stringify(receipt, null, 2)} />
          <button type="button" onClick={onClose}>
            {texts.close}
          </button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title={texts.people.deleteTitle(nameOf(subject))} class="small" onClose={onClose}>
      <p>{texts.people.deleteLead}</p>
      <div class="row">
        <button type="button" class="primary" disabled={isGoing} onClick={() => void erase()}>
          {texts.people.deleteConfirm}
        </button>
        <button type="button" onClick={onClose}>
          {texts.cancel}
        </button>
      </div>
    </Dialog>
  );
}
