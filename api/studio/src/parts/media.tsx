/** Pictures: fetched with the key where there is one, resolving in place, compared. */
import { useEffect, useRef, useState } from "preact/hooks";
import { at, key, request } from "../api/http";
import { texts } from "../texts";

/** Pictures that were fetched with a key, as URLs of this page; the oldest are let go. */
const fetched = new Map<string, Promise<string>>();
const MOST = 400;

function urlOf(path: string): Promise<string> {
  const found = fetched.get(path);
  if (found) {
    fetched.delete(path);
    fetched.set(path, found);
    return found;
  }
  const url = request("GET", path, { headers: { Accept: "image/webp,image/png" } }).then(async (answer) => URL.createObjectURL(await answer.blob()));
  fetched.set(path, url);
  url.catch(() => fetched.delete(path));
  for (const [old, value] of [...fetched].slice(0, Math.max(0, fetched.size - MOST))) {
    fetched.delete(old);
    void value.then(URL.revokeObjectURL, () => {});
  }
  return url;
}

/** A path of the service, or an address of this page (`data:`, `blob:`). */
const isOfService = (path: string) => path.startsWith("/");
const needsFetching = (path: string) => !!key.value && isOfService(path);
const direct = (path: string | null) => (path && isOfService(path) ? at(path) : path);

/** Where the browser gets a picture of the service; null until it is there. */
export function usePicture(path: string | null): string | null {
  const [url, setUrl] = useState<string | null>(path && !needsFetching(path) ? direct(path) : null);
  useEffect(() => {
    if (!path || !needsFetching(path)) return setUrl(direct(path));
    let isCurrent = true;
    urlOf(path).then((found) => isCurrent && setUrl(found), () => isCurrent && setUrl(null));
    return () => {
      isCurrent = false;
    };
  }, [path]);
  return url;
}

export function Img({ src, alt, class: name = "" }: { src: string; alt: string; class?: string }) {
  const url = usePicture(src);
  return url ? <img src={url} alt={alt} class={name} draggable={false} decoding="async" /> : <span class={`blank ${name}`} />;
}

interface Place {
  src: string | null;
  alt: string;
  /** Whether somebody waits for it: else it is there at once, as when it is scrolled to. */
  isAwaited?: boolean;
}

/** One place on the page in which pictures follow each other: the next one develops over the one before. */
export function Develop({ src, alt, isAwaited = true }: Place) {
  const url = usePicture(src);
  if (isAwaited) return <Layers url={url} alt={alt} />;
  return <span class="develop is-still">{url && <img class="is-there" src={url} alt={alt} draggable={false} decoding="async" />}</span>;
}

function Layers({ url, alt }: { url: string | null; alt: string }) {
  const [layers, setLayers] = useState<string[]>([]);
  const [ready, setReady] = useState<string | null>(null);
  useEffect(() => {
    if (!url || layers.at(-1) === url) return;
    setLayers((before) => [...before.slice(-1), url]);
  }, [url]);
  return (
    <span class="develop">
      {layers.map((layer, index) => (
        <img
          key={layer}
          src={layer}
          alt={index === layers.length - 1 ? alt : ""}
          class={ready === layer || index < layers.length - 1 ? "is-there" : ""}
          draggable={false}
          onLoad={() => setReady(layer)}
        />
      ))}
    </span>
  );
}

/** Two pictures over each other, and where one ends and the other begins. */
export function Compare({ below, above, belowAlt, aboveAlt }: { below: string; above: string; belowAlt: string; aboveAlt: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [share, setShare] = useState(50);
  useEffect(() => box.current?.style.setProperty("--share", `${share}%`), [share]);
  return (
    <div class="compare" ref={box}>
      <Img src={below} alt={belowAlt} />
      <Img src={above} alt={aboveAlt} class="above" />
      <span class="divider" aria-hidden="true" />
      <input
        type="range"
        min="0"
        max="100"
        value={share}
        aria-label={texts.picture.compareRange}
        onInput={(event) => setShare(Number(event.currentTarget.value))}
      />
    </div>
  );
}
