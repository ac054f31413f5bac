/** Style packs: named lists of prompts that run as one batch. */
import { useState } from "preact/hooks";
import { newKey, send } from "../api/http";
import type { Pack, Subject } from "../api/types";
import { bodyOf, type Wish } from "../state/ask";
import { complain, loadPacks, packs, runBatch } from "../state/store";
import { texts } from "../texts";
import { Icon } from "./basics";

export function Packs({ subject, wish, isPreview, canAsk }: { subject: Subject; wish: Wish; isPreview: boolean; canAsk: boolean }) {
  const [state, setState] = useState<string | null>(null);
  const run = async (pack: Pack) => {
    const { prompt: _, subject_id: __, blend: ___, n: ____, ...defaults } = bodyOf(subject, wish, isPreview);
    setState(texts.start.sending);
    await runBatch(pack.prompts, [subject.id], defaults, (problem, seconds) => setState(problem.code === "queue-full" ? texts.states.full(seconds) : texts.states.busy(seconds)));
    setState(null);
  };
  return (
    <div class="packs stack">
      <ul role="list">
        {packs.value.map((pack) => (
          <li key={pack.id} class="row between">
            <span>{pack.name}</span>
            <span class="row">
              {!pack.of_model && (
                <button type="button" class="ghost square" aria-label={texts.ask.packDelete(pack.name)} onClick={() => void drop(pack)}>
                  <Icon name="trash" />
                </button>
              )}
              <button type="button" disabled={!canAsk || !!state} title={pack.prompts.join("\n")} aria-label={`${pack.name}: ${texts.ask.packRun(pack.prompts.length)}`} onClick={() => void run(pack)}>
                {texts.ask.packRun(pack.prompts.length)}
              </button>
            </span>
          </li>
        ))}
      </ul>
      {state && <p role="status">{state}</p>}
      <Make prompt={wish.prompt} />
    </div>
  );
}

async function drop(pack: Pack) {
  try {
    await send("DELETE", `/v1/packs/${pack.id}`);
    await loadPacks();
  } catch (error) {
    complain(error);
  }
}

function Make({ prompt }: { prompt: string }) {
  const [isOpen, setOpen] = useState(false);
  const [name, setName] = useState("");
  const [lines, setLines] = useState(prompt);
  if (!isOpen) {
    return (
      <button type="button" class="plain" onClick={() => (setLines(prompt), setOpen(true))}>
        {texts.ask.packMake}
      </button>
    );
  }
  const prompts = lines.split("\n").map((line) => line.trim()).filter(Boolean);
  const keep = async (event: Event) => {
    event.preventDefault();
    try {
      await send("POST", "/v1/packs", { json: { name: name.trim(), prompts }, once: newKey() });
      await loadPacks();
      setOpen(false);
      setName("");
    } catch (error) {
      complain(error);
    }
  };
  return (
    <form class="stack" onSubmit={(event) => void keep(event)}>
      <label class="field">
        <span>{texts.ask.packName}</span>
        <input value={name} maxLength={100} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      <label class="field">
        <span>{texts.ask.packPrompts}</span>
        <textarea rows={4} value={lines} onInput={(event) => setLines(event.currentTarget.value)} />
      </label>
      <div class="row">
        <button type="submit" disabled={!name.trim() || !prompts.length || prompts.length > 50}>
          {texts.ask.packSave}
        </button>
        <button type="button" class="plain" onClick={() => setOpen(false)}>
          {texts.cancel}
        </button>
      </div>
    </form>
  );
}
