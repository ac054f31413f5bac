/** Ask: a prompt, the model's styles and words, whole packs, and every option that the model has. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem, Subject } from "../api/types";
import { CopyButton, Icon } from "../parts/basics";
import { asCode } from "../parts/code";
import { Img } from "../parts/media";
import { Packs } from "../parts/packs";
import { bodyOf, change, hasWord, turnWord, wishOf, type Wish } from "../state/ask";
import { attributes, styleCards } from "../state/model";
import { generate, model, nameOf, people } from "../state/store";
import { texts } from "../texts";

interface Props {
  subject: Subject;
  isPreview: boolean;
  canAsk: boolean;
}

export function Ask({ subject, isPreview, canAsk }: Props) {
  const wish = wishOf(subject);
  const [state, setState] = useState<string | null>(null);
  const [warnings, setWarnings] = useState<string[]>([]);
  const waits = (problem: Problem, seconds: number) => setState(problem.code === "queue-full" ? texts.states.full(seconds) : texts.states.busy(seconds));
  const set = (changes: Partial<Wish>) => change(subject, changes);
  const seconds = model.value?.seconds.picture;
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!canAsk || state || !wish.prompt.trim()) return;
    setState(texts.start.sending);
    const job = await generate(bodyOf(subject, wish, isPreview), waits);
    setWarnings(job?.warnings?.map((each) => each.message) ?? []);
    setState(null);
  };
  return (
    <section class="ask" aria-labelledby="ask">
      <h2 id="ask">{texts.ask.heading}</h2>
      <form class="stack" onSubmit={(event) => void submit(event)}>
        <Prompt value={wish.prompt} onInput={(prompt) => set({ prompt })} />
        {warnings.length > 0 && (
          <ul class="warnings" aria-label={texts.ask.warnings} role="status">
            {warnings.map((each) => (
              <li key={each}>{each}</li>
            ))}
          </ul>
        )}
        <Styles wish={wish} set={set} />
        <Words wish={wish} set={set} />
        <div class="row asking">
          <Count wish={wish} set={set} />
          <label class="field seed">
            <span>{texts.ask.seed}</span>
            <input inputMode="numeric" pattern="[0-9]*" placeholder={texts.ask.seedHint} value={wish.seed} onInput={(event) => set({ seed: event.currentTarget.value.replace(/\D/g, "").slice(0, 10) })} />
          </label>
          <span class="soft takes">{seconds ? texts.ask.takes(seconds * wish.n) : ""}</span>
          <button type="submit" class="primary" disabled={!canAsk || !!state || !wish.prompt.trim()}>
            {state ?? texts.ask.make(wish.n)}
          </button>
        </div>
        {!canAsk && <p class="soft">{texts.ask.notReady}</p>}
        {canAsk && isPreview && <p class="soft">{texts.ask.previewOnly}</p>}
        <details class="options">
          <summary>{texts.ask.options}</summary>
          <Options subject={subject} wish={wish} set={set} isPreview={isPreview} />
        </details>
      </form>
      <details class="options">
        <summary>{texts.ask.packs}</summary>
        <Packs subject={subject} wish={wish} isPreview={isPreview} canAsk={canAsk} />
      </details>
    </section>
  );
}

/** A text field in which [V] is a chip: the chip is drawn behind the text, so that it stays a text field. */
function Prompt({ value, onInput }: { value: string; onInput(value: string): void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [value]);
  const parts = value.split(/(\[v\])/i);
  return (
    <label class="field prompt">
      <span>{texts.ask.prompt}</span>
      <span class="prompt-box">
        <span class="behind" aria-hidden="true">
          {parts.map((part, index) => (index % 2 ? <mark key={index}>{part}</mark> : <span key={index}>{part}</span>))}{" "}
        </span>
        <textarea
          ref={field}
          rows={1}
          maxLength={1000}
          spellcheck={false}
          value={value}
          aria-describedby="prompt-hint"
          onInput={(event) => onInput(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey) return;
            event.preventDefault();
            event.currentTarget.form?.requestSubmit();
          }}
        />
      </span>
      <small id="prompt-hint" class="soft">
        {texts.ask.promptHint}
      </small>
    </label>
  );
}

interface Part {
  wish: Wish;
  set(changes: Partial<Wish>): void;
}

function Styles({ wish, set }: Part) {
  const cards = styleCards.value;
  if (!cards.length) return null;
  return (
    <fieldset class="styles">
      <legend>{texts.ask.styles}</legend>
      <ul class="strip" role="list">
        {cards.map((each) => (
          <li key={each.name}>
            <button type="button" class={`film style ${each.sample ? "" : "no-sample"}`} aria-pressed={wish.prompt === each.prompt} onClick={() => set({ prompt: each.prompt })}>
              {each.sample && <Img src={each.sample} alt="" />}
              <span class="edge">{each.name}</span>
            </button>
          </li>
        ))}
      </ul>
    </fieldset>
  );
}

/** Words that the model has been measured to honor; a bundle that honors none has no such cards. */
function Words({ wish, set }: Part) {
  const cards = attributes.value;
  if (!cards.length) return null;
  return (
    <fieldset class="styles words">
      <legend>{texts.ask.attributes}</legend>
      <ul class="strip" role="list">
        {cards.map(({ name, sample }) => (
          <li key={name}>
            <button type="button" class={`film style ${sample ? "" : "no-sample"}`} aria-pressed={hasWord(wish.prompt, name)} onClick={() => set({ prompt: turnWord(wish.prompt, name) })}>
              {sample && <Img src={sample} alt="" />}
              <span class="edge">{name}</span>
            </button>
          </li>
        ))}
      </ul>
    </fieldset>
  );
}

function Count({ wish, set }: Part) {
  return (
    <label class="field count-field">
      <span>{texts.ask.count}</span>
      <select value={wish.n} onChange={(event) => set({ n: Number(event.currentTarget.value) })}>
        {[1, 2, 4, 6, 8, 12, 16].map((each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Sides that the model makes well: its own, and those not far from it. */
function sizesOf(): number[] {
  const { resolution, limits } = model.value ?? {};
  if (!resolution || !limits) return [];
  const near = [0.75, 1, 1.25, 1.5].map((share) => Math.round((resolution * share) / limits.side_multiple) * limits.side_multiple);
  return [...new Set(near)].filter((side) => side >= limits.side_min && side <= limits.side_max);
}

function Options({ subject, wish, set, isPreview }: Part & { subject: Subject; isPreview: boolean }) {
  const sizes = sizesOf();
  const code = asCode(bodyOf(subject, wish, isPreview));
  return (
    <div class="option-grid">
      <Number_ label={texts.ask.steps} value={wish.steps} least={1} most={100} hint={model.value ? String(model.value.steps) : ""} onInput={(steps) => set({ steps })} />
      <Number_ label={texts.ask.guidance} value={wish.guidance} least={1} most={30} step="0.25" hint={model.value ? String(model.value.guidance_scale) : ""} onInput={(guidance) => set({ guidance })} />
      <label class="field">
        <span>{texts.ask.size}</span>
        <select value={wish.size} onChange={(event) => set({ size: event.currentTarget.value })}>
          <option value="">{texts.ask.defaultValue(model.value?.resolution ? `${model.value.resolution}` : "")}</option>
          {sizes.map((each) => (
            <option key={each} value={each}>
              {each} × {each}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        <span>{texts.ask.stage}</span>
        <select value={isPreview ? "preview" : wish.stage} disabled={isPreview || !subject.preview_ready} onChange={(event) => set({ stage: event.currentTarget.value as Wish["stage"] })}>
          <option value="refined">{texts.ask.refined}</option>
          <option value="preview">{texts.ask.preview}</option>
        </select>
      </label>
      <label class="field whole">
        <span>
          {texts.ask.strength} <output>{wish.strength.toFixed(2)}</output>
        </span>
        <input type="range" min="0" max="1" step="0.05" value={wish.strength} onInput={(event) => set({ strength: Number(event.currentTarget.value) })} />
        <small class="row between soft" aria-hidden="true">
          <span>{texts.ask.strengthLow}</span>
          <span>{texts.ask.strengthHigh}</span>
        </small>
      </label>
      <label class="field whole">
        <span>{texts.ask.negative}</span>
        <input value={wish.negative} maxLength={1000} onInput={(event) => set({ negative: event.currentTarget.value })} />
      </label>
      <Blend subject={subject} wish={wish} set={set} />
      <p class="row whole">
        {(["curl", "python", "hdb"] as const).map((each) => (
          <CopyButton key={each} text={code[each]} label={`${texts.copy}: ${texts.picture.codeTabs[each]}`} />
        ))}
      </p>
    </div>
  );
}

function Number_({ label, value, least, most, step = "1", hint, onInput }: { label: string; value: string; least: number; most: number; step?: string; hint: string; onInput(value: string): void }) {
  return (
    <label class="field">
      <span>{label}</span>
      <input type="number" min={least} max={most} step={step} placeholder={hint} value={value} onInput={(event) => onInput(event.currentTarget.value)} />
    </label>
  );
}

function Blend({ subject, wish, set }: Part & { subject: Subject }) {
  const ready = (people.value ?? []).filter((each) => each.status === "ready" && each.id !== subject.id);
  const free = ready.filter((each) => !wish.blend.some((one) => one.id === each.id));
  if (!ready.length && !wish.blend.length) return null;
  const name = (id: string) => nameOf(people.value?.find((each) => each.id === id));
  const share = (label: string, weight: number, onInput: (weight: number) => void) => (
    <label class="field">
      <span>
        {label} <output>{weight.toFixed(2)}</output>
      </span>
      <input type="range" min="0" max="1" step="0.05" value={weight} aria-label={texts.ask.share(label)} onInput={(event) => onInput(Number(event.currentTarget.value))} />
    </label>
  );
  return (
    <fieldset class="blend whole">
      <legend>{texts.ask.blend}</legend>
      {wish.blend.length > 0 && share(nameOf(subject), wish.own, (own) => set({ own: Math.max(0.05, own) }))}
      {wish.blend.map((each) => (
        <div key={each.id} class="row">
          {share(name(each.id), each.weight, (weight) => set({ blend: wish.blend.map((one) => (one.id === each.id ? { ...one, weight } : one)) }))}
          <button type="button" class="ghost square" aria-label={texts.start.remove(name(each.id))} onClick={() => set({ blend: wish.blend.filter((one) => one.id !== each.id) })}>
            <Icon name="close" />
          </button>
        </div>
      ))}
      {free.length > 0 && wish.blend.length < 7 && (
        <select aria-label={texts.ask.blendAdd} value="" onChange={(event) => set({ blend: [...wish.blend, { id: event.currentTarget.value, weight: 1 }] })}>
          <option value="">{texts.ask.blendAdd}</option>
          {free.map((each) => (
            <option key={each.id} value={each.id}>
              {nameOf(each)}
            </option>
          ))}
        </select>
      )}
    </fieldset>
  );
}
