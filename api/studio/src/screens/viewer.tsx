/** One picture, large: what it was made with, what the file says of itself, compared, asked for again. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { imageOf, read, request } from "../api/http";
import type { Picture } from "../api/types";
import { CopyButton, Dialog, Icon, percent, save, when } from "../parts/basics";
import { asCode } from "../parts/code";
import { saysOfItself } from "../parts/credentials";
import { Compare, Img } from "../parts/media";
import { askLike, bodyOfPicture } from "../state/ask";
import { jobOf } from "../state/gallery";
import { go, link, openPicture, route } from "../state/route";
import { complain, crops, nameOf, people } from "../state/store";
import { texts } from "../texts";

/** The pictures around one: as the list has them, of the person whose screen it is, or of all. */
async function around(subject: string): Promise<Picture[]> {
  const only = subject ? `&subject_id=${subject}` : "";
  return (await read<{ images: Picture[] }>(`/v1/images?limit=100${only}`)).images;
}

export function Viewer({ id }: { id: string }) {
  const [list, setList] = useState<Picture[]>([]);
  const [alone, setAlone] = useState<Picture | null>(null);
  const [isGone, setGone] = useState(false);
  const subject = route.value.screen === "person" ? route.value.id : "";
  useEffect(() => {
    around(subject).then(setList, complain);
  }, [subject]);
  const index = list.findIndex((each) => each.id === id);
  const picture = list[index] ?? (alone?.id === id ? alone : null);
  useEffect(() => {
    if (list[index]) return;
    read<{ images: Picture[] }>(`/v1/images?job_id=${jobOf(id)}`).then(({ images }) => {
      const found = images.find((each) => each.id === id) ?? null;
      setAlone(found);
      setGone(!found);
    }, complain);
  }, [id]);
  const close = () => openPicture(null);
  const step = (by: number) => {
    const next = list[index + by];
    if (next) openPicture(next.id, true);
  };
  useEffect(() => {
    const move = (event: KeyboardEvent) => {
      if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.target instanceof HTMLTextAreaElement) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    };
    addEventListener("keydown", move);
    return () => removeEventListener("keydown", move);
  });
  return (
    <Dialog title={picture?.prompt ?? texts.picture.title} isTitleHidden class="viewer" onClose={close}>
      {isGone && !picture && <p>{texts.picture.gone}</p>}
      {picture && <Large picture={picture} others={list} onStep={step} hasPrevious={index > 0} hasNext={index >= 0 && index < list.length - 1} onClose={close} />}
    </Dialog>
  );
}

interface LargeProps {
  picture: Picture;
  others: Picture[];
  hasPrevious: boolean;
  hasNext: boolean;
  onStep(by: number): void;
  onClose(): void;
}

function Large({ picture, others, hasPrevious, hasNext, onStep, onClose }: LargeProps) {
  const [other, setOther] = useState("");
  const crop = crops.get(picture.subject_ids[0] ?? "");
  const compared = other === "photo" ? crop : (other && imageOf(other));
  const candidates = others.filter((each) => each.id !== picture.id).slice(0, 24);
  const prompt = picture.prompt ?? texts.gallery.noPrompt;
  const like = (keepSeed: boolean) => {
    askLike(picture, keepSeed);
    onClose();
    go(link("person", picture.subject_ids[0]));
  };
  return (
    <div class="large">
      <figure class="film">
        {compared ? <Compare below={imageOf(picture.id)} above={compared} belowAlt={prompt} aboveAlt={other === "photo" ? texts.picture.comparePhoto : prompt} /> : <Img src={imageOf(picture.id)} alt={prompt} />}
        <figcaption class="edge">
          <span>
            {texts.picture.likeness} {percent(picture.likeness) || "–"}
          </span>
          <span>
            {texts.picture.seed} {picture.seed}
          </span>
        </figcaption>
        <button type="button" class="step previous square" disabled={!hasPrevious} aria-label={texts.picture.previous} onClick={() => onStep(-1)}>
          <Icon name="left" />
        </button>
        <button type="button" class="step next square" disabled={!hasNext} aria-label={texts.picture.next} onClick={() => onStep(1)}>
          <Icon name="right" />
        </button>
      </figure>
      <div class="large-said stack">
        <p class="lead">{prompt}</p>
        <Facts picture={picture} />
        <div class="row">
          <button type="button" class="primary" onClick={() => like(false)}>
            {texts.picture.moreLike}
          </button>
          <button type="button" onClick={() => like(true)}>
            {texts.picture.againSeed}
          </button>
          <Download picture={picture} />
        </div>
        {(crop || candidates.length > 0) && (
          <label class="field">
            <span>
              {texts.picture.compare} {texts.picture.compareWith}
            </span>
            <select value={other} onChange={(event) => setOther(event.currentTarget.value)}>
              <option value="">{texts.picture.compareOff}</option>
              {crop && <option value="photo">{texts.picture.comparePhoto}</option>}
              {candidates.map((each) => (
                <option key={each.id} value={each.id}>
                  {each.prompt ?? texts.gallery.noPrompt} · {each.seed}
                </option>
              ))}
            </select>
          </label>
        )}
        <Code picture={picture} />
        <Credentials picture={picture} />
      </div>
    </div>
  );
}

function Facts({ picture }: { picture: Picture }) {
  const names = picture.subject_ids.map((id) => nameOf(people.value?.find((each) => each.id === id)));
  const facts: [string, string][] = [
    [texts.picture.who, names.join(" + ")],
    [texts.picture.size, `${picture.width} × ${picture.height}`],
    [texts.picture.steps, picture.steps ? String(picture.steps) : ""],
    [texts.picture.guidance, picture.guidance_scale ? String(picture.guidance_scale) : ""],
    [texts.ask.strength, picture.strength != null ? String(picture.strength) : ""],
    [texts.ask.negative, picture.negative_prompt ?? ""],
    [texts.picture.made, when(picture.created_at)],
  ];
  return (
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
  );
}

function Download({ picture }: { picture: Picture }) {
  const download = async () => {
    try {
      const answer = await request("GET", imageOf(picture.id), { headers: { Accept: "image/png" } });
      save(await answer.blob(), `${picture.id}.png`);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <button type="button" onClick={() => void download()}>
      <Icon name="down" /> {texts.picture.download}
    </button>
  );
}

function Code({ picture }: { picture: Picture }) {
  const [tab, setTab] = useState<"curl" | "python" | "hdb">("curl");
  const code = useMemo(() => asCode(bodyOfPicture(picture)), [picture]);
  const tabs = useRef<HTMLDivElement>(null);
  const order = ["curl", "python", "hdb"] as const;
  const move = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.stopPropagation();
    const next = order[(order.indexOf(tab) + by + order.length) % order.length] ?? "curl";
    setTab(next);
    tabs.current?.querySelector<HTMLElement>(`#code-${next}`)?.focus();
  };
  return (
    <details class="options">
      <summary>{texts.picture.code}</summary>
      <div class="tabs" role="tablist" ref={tabs} onKeyDown={move}>
        {order.map((each) => (
          <button key={each} id={`code-${each}`} type="button" role="tab" aria-selected={tab === each} aria-controls="code" tabIndex={tab === each ? 0 : -1} onClick={() => setTab(each)}>
            {texts.picture.codeTabs[each]}
          </button>
        ))}
      </div>
      <pre id="code" role="tabpanel" aria-labelledby={`code-${tab}`} tabIndex={0}>
        {code[tab]}
      </pre>
      <CopyButton text={code[tab]} />
    </details>
  );
}

/** What the file says of itself; read from the file, not from what the service says of it. */
function Credentials({ picture }: { picture: Picture }) {
  const [said, setSaid] = useState<[string, string][] | null>(null);
  useEffect(() => {
    let isCurrent = true;
    request("GET", imageOf(picture.id), { headers: { Accept: "image/png" } })
      .then(async (answer) => saysOfItself(await answer.arrayBuffer()))
      .then((found) => isCurrent && setSaid(found), () => {});
    return () => {
      isCurrent = false;
    };
  }, [picture.id]);
  return (
    <section class="credentials">
      <h3>{texts.picture.credentials}</h3>
      <p class="soft">{said?.length === 0 ? texts.picture.credentialsNone : texts.picture.credentialsLead}</p>
      <dl class="facts-list">
        {said?.map(([name, value], index) => (
          <div key={index}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
