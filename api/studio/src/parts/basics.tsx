/** Small parts that many screens have. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { texts } from "../texts";

const PATHS = {
  plus: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  down: "M8 2.5v8M4.5 7L8 10.5 11.5 7M3 13.5h10",
  camera: "M2.5 5h2.6l1-1.6h3.8l1 1.6h2.6v7.6h-11zM8 6.6a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4z",
  key: "M9.8 6.2a2.9 2.9 0 1 0-1.9 2.7L9 10h1.5v1.5H12V13h2v-2L9.7 7z",
  check: "M3 8.5l3.2 3.2L13 5",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5",
  dice: "M3 3h10v10H3zM6 6h.01M10 10h.01M10 6h.01M6 10h.01M8 8h.01",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.6M8 12.9v1.6M1.5 8h1.6M12.9 8h1.6M3.4 3.4l1.1 1.1M11.5 11.5l1.1 1.1M12.6 3.4l-1.1 1.1M4.5 11.5l-1.1 1.1",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface DialogProps {
  title: string;
  onClose(): void;
  children: ComponentChildren;
  class?: string;
  isTitleHidden?: boolean;
}

/** A modal dialog: the browser keeps the focus in it, closes it with Escape, and gives the focus back. */
export function Dialog({ title, onClose, children, class: name = "", isTitleHidden = false }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    const opener = document.activeElement;
    element?.showModal();
    return () => {
      element?.close();
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={`dialog ${name}`}
      aria-labelledby={id}
      onCancel={(event) => (event.preventDefault(), onClose())}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <div class="dialog-body">
        <header>
          <h2 id={id} class={isTitleHidden ? "visually-hidden" : ""}>
            {title}
          </h2>
          <button type="button" class="ghost square" aria-label={texts.close} onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** The share of something that is done; null: not known. */
export function Progress({ share, label }: { share: number | null; label: string }) {
  const bar = useRef<HTMLSpanElement>(null);
  useEffect(() => bar.current?.style.setProperty("--share", String(share ?? 0)), [share]);
  const now = share === null ? {} : { "aria-valuenow": Math.round(share * 100) };
  return (
    <span class={`progress ${share === null ? "is-open" : ""}`} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} {...now}>
      <span ref={bar} />
    </span>
  );
}

export function CopyButton({ text, label = texts.copy }: { text: string; label?: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class="plain" onClick={() => void copy()}>
      {isCopied ? texts.copied : label}
    </button>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <span class="crop-marks" aria-hidden="true" />
      <p>{title}</p>
      {children}
    </div>
  );
}

/** A likeness as it is printed; empty where there is none. */
export const percent = (value: number | null | undefined) => (value == null ? "" : value.toFixed(2));

export const when = (time: string) => new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

/** The list of files in a drop or a paste. */
export const imagesIn = (files: FileList | null | undefined) => [...(files ?? [])].filter((file) => file.type.startsWith("image/") || /\.(heic|heif|avif)$/i.test(file.name));

export function save(data: Blob, name: string) {
  const url = URL.createObjectURL(data);
  const anchor = Object.assign(document.createElement("a"), { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
