/** All pictures: by person, by prompt; large, compared, downloaded. */
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { imageOf, request, revision } from "../api/http";
import { Empty, save } from "../parts/basics";
import { cellsOf, Frame } from "../parts/frames";
import { Grid } from "../parts/grid";
import { zip, type Entry } from "../parts/zip";
import { Gallery } from "../state/gallery";
import { batchGrew, complain, nameOf, onEnd, people } from "../state/store";
import { texts } from "../texts";
import { settled } from "./person";

export function Pictures() {
  const [subject, setSubject] = useState("");
  const [search, setSearch] = useState("");
  const [prompt, setPrompt] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setPrompt(search.trim()), 250);
    return () => clearTimeout(timer);
  }, [search]);
  const gallery = useMemo(() => new Gallery({ ...(subject && { subject_id: subject }), ...(prompt && { prompt }) }), [subject, prompt]);
  const again = revision.value;
  useEffect(() => void gallery.more().catch(complain), [gallery]);
  useEffect(() => void gallery.refresh().catch(complain), [gallery, again, batchGrew.value]);
  useEffect(() => onEnd((job) => job.kind === "generate" && !prompt && void settled(gallery, job.id, job.status === "failed")), [gallery]);
  const more = useCallback(() => void gallery.more().catch(complain), [gallery]);
  const pictures = gallery.pictures.value;
  const cells = cellsOf(pictures, (subjects) => !prompt && (!subject || subjects.includes(subject)));
  const isEmpty = !cells.length && gallery.state.value === "all";
  return (
    <div class="page">
      <div class="bar">
        <h1>{texts.gallery.title}</h1>
        <label class="field">
          <span>{texts.gallery.person}</span>
          <select value={subject} onChange={(event) => setSubject(event.currentTarget.value)}>
            <option value="">{texts.gallery.everybody}</option>
            {people.value?.map((each) => (
              <option key={each.id} value={each.id}>
                {nameOf(each)}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>{texts.gallery.search}</span>
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
        {pictures.length > 0 && <DownloadAll gallery={gallery} />}
      </div>
      {isEmpty ? (
        <Empty title={prompt ? texts.gallery.emptySearch : texts.gallery.empty} />
      ) : (
        <Grid cells={cells} label={texts.gallery.label} onNearEnd={more} render={(cell, isFocusable) => <Frame cell={cell} isFocusable={isFocusable} />} />
      )}
    </div>
  );
}

const AT_ONCE = 4;

function DownloadAll({ gallery }: { gallery: Gallery }) {
  const [state, setState] = useState<string | null>(null);
  const download = async () => {
    try {
      while (gallery.state.value === "more") await gallery.more();
      const waiting = gallery.pictures.value.map((each) => each);
      const total = waiting.length;
      const entries: Entry[] = [];
      const take = async () => {
        for (let next = waiting.shift(); next; next = waiting.shift()) {
          const answer = await request("GET", imageOf(next.id), { headers: { Accept: "image/png" } });
          entries.push({ name: `${next.id}.png`, data: new Uint8Array(await answer.arrayBuffer()) });
          setState(texts.gallery.downloading(entries.length, total));
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, take));
      save(zip(entries.sort((one, other) => (one.name < other.name ? 1 : -1))), "pictures.zip");
    } catch (error) {
      complain(error);
    }
    setState(null);
  };
  return (
    <button type="button" disabled={!!state} onClick={() => void download()}>
      {state ?? texts.gallery.downloadAll}
    </button>
  );
}
