/** Photo in: drop, paste, choose or take; checked at once; nothing is sent for keeps before there is consent. */
import { useEffect, useRef, useState } from "preact/hooks";
import { imageOf, revision } from "../api/http";
import { Dialog, Icon, imagesIn } from "../parts/basics";
import { Img } from "../parts/media";
import { PhotoCard } from "../parts/photo";
import { addPhotos, begin, canBegin, checkAgain, chosen, hasRefused, letGo, MOST_PHOTOS } from "../state/photos";
import { go, link } from "../state/route";
import { nameOf, people } from "../state/store";
import { styleCards } from "../state/model";
import { texts } from "../texts";

export function New({ addTo }: { addTo: string }) {
  const subject = people.value?.find((each) => each.id === addTo);
  const again = revision.value;
  useEffect(checkAgain, [again]);
  useEffect(() => letGo, []);
  const hasPhotos = chosen.value.length > 0;
  return (
    <div class="page new">
      <section class={`hero ${hasPhotos ? "is-small" : ""}`}>
        <div class="intro">
          <h1>{addTo ? texts.start.addTo(nameOf(subject)) : texts.start.heading}</h1>
          {!hasPhotos && <p class="lead">{addTo ? texts.start.addToLead : texts.start.lead}</p>}
          {!hasPhotos && <p class="soft privacy">{texts.start.privacy}</p>}
        </div>
        <DropZone isSmall={hasPhotos} />
      </section>
      {hasPhotos && (
        <section class="chosen" aria-label={texts.start.photosHeading}>
          <div class="photos">
            {chosen.value.map((each, index) => (
              <PhotoCard key={each.id} photo={each} number={index + 1} />
            ))}
          </div>
          <Begin addTo={addTo} />
        </section>
      )}
      {!hasPhotos && !addTo && <Samples />}
      {!hasPhotos && !addTo && <Existing />}
    </div>
  );
}

function DropZone({ isSmall }: { isSmall: boolean }) {
  const [isOver, setOver] = useState(false);
  const [hasCamera, setCamera] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    // Anywhere on the page: aiming is no work for a visitor.
    const over = (event: DragEvent) => (event.preventDefault(), setOver(true));
    const leave = (event: DragEvent) => event.relatedTarget === null && setOver(false);
    const drop = (event: DragEvent) => {
      event.preventDefault();
      setOver(false);
      addPhotos(imagesIn(event.dataTransfer?.files));
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);
  const isFull = chosen.value.length >= MOST_PHOTOS;
  return (
    <section class={`drop ${isOver ? "is-over" : ""} ${isSmall ? "is-small" : ""}`}>
      <span class="crop-marks" aria-hidden="true" />
      <p class="drop-title">{isOver ? texts.start.dropping : isSmall ? texts.start.addMore : texts.start.drop}</p>
      <div class="row center">
        <button type="button" class={isSmall ? "" : "primary"} disabled={isFull} onClick={() => input.current?.click()}>
          {texts.start.choose}
        </button>
        <button type="button" disabled={isFull} onClick={() => setCamera(true)}>
          <Icon name="camera" /> {texts.start.camera}
        </button>
      </div>
      {!isSmall && <p class="soft">{texts.start.hint}</p>}
      <input
        ref={input}
        class="visually-hidden"
        type="file"
        accept="image/*,.heic,.heif,.avif"
        multiple
        tabIndex={-1}
        aria-hidden="true"
        onChange={(event) => {
          addPhotos(imagesIn(event.currentTarget.files));
          event.currentTarget.value = "";
        }}
      />
      {hasCamera && <Camera onClose={() => setCamera(false)} />}
    </section>
  );
}

function Begin({ addTo }: { addTo: string }) {
  const [name, setName] = useState("");
  const [keep, setKeep] = useState(false);
  const [hasConsent, setConsent] = useState(false);
  const [state, setState] = useState<string | null>(null);
  const [isAsked, setAsked] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setAsked(true);
    if (!hasConsent || !canBegin.value || state) return;
    setState(texts.start.sending);
    const id = await begin({ name: name.trim(), keep, addTo }, (problem, seconds) => setState(problem.code === "queue-full" ? texts.states.full(seconds) : texts.states.busy(seconds)));
    setState(null);
    if (id) go(link("person", id));
  };
  return (
    <form class="begin stack" onSubmit={(event) => void submit(event)}>
      {!addTo && (
        <label class="field">
          <span>{texts.start.nameLabel}</span>
          <input value={name} maxLength={100} autocomplete="off" placeholder={texts.start.nameHint} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
      )}
      <label class="tick">
        <input type="checkbox" checked={hasConsent} aria-describedby="consent-hint" onChange={(event) => setConsent(event.currentTarget.checked)} />
        <span>{texts.start.consent}</span>
      </label>
      <p id="consent-hint" class="soft">
        {texts.start.consentHint}
      </p>
      <label class="tick">
        <input type="checkbox" checked={keep} onChange={(event) => setKeep(event.currentTarget.checked)} />
        <span>{texts.start.keep}</span>
      </label>
      {isAsked && !hasConsent && (
        <p class="refusal" role="alert">
          {texts.start.needConsent}
        </p>
      )}
      {hasRefused.value && <p class="soft">{texts.start.removeRefused}</p>}
      <button type="submit" class="primary wide" disabled={!canBegin.value || !!state}>
        {state ?? (addTo ? texts.start.beginMore : texts.start.begin)}
      </button>
    </form>
  );
}

/** What the model makes, from its own samples. */
function Samples() {
  const cards = styleCards.value.filter((each) => each.sample);
  if (!cards.length) return null;
  return (
    <section class="samples" aria-labelledby="samples-title">
      <h2 id="samples-title">{texts.start.samples}</h2>
      <p class="soft">{texts.start.samplesLead}</p>
      <ul class="strip" role="list" aria-labelledby="samples-title" tabIndex={0}>
        {cards.map((each) => (
          <li key={each.name} class="film">
            <Img src={each.sample!} alt="" />
            <span class="edge">{each.name}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Existing() {
  const found = (people.value ?? []).filter((each) => each.preview || each.status === "ready").slice(0, 8);
  if (!found.length) return null;
  return (
    <section class="existing" aria-labelledby="existing-title">
      <h2 id="existing-title">{texts.start.existing}</h2>
      <ul class="faces" role="list">
        {found.map((each) => (
          <li key={each.id}>
            <a href={link("person", each.id)} class="face">
              {each.preview ? <Img src={imageOf(each.preview.id)} alt="" /> : <span class="blank" />}
              <span>{nameOf(each)}</span>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Camera({ onClose }: { onClose(): void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [isDenied, setDenied] = useState(false);
  const [isReady, setReady] = useState(false);
  useEffect(() => {
    let stream: MediaStream | null = null;
    let isOpen = true;
    const open = async () => {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
        if (!isOpen) return stream.getTracks().forEach((track) => track.stop());
        if (video.current) video.current.srcObject = stream;
      } catch {
        setDenied(true);
      }
    };
    void open();
    return () => {
      isOpen = false;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, []);
  const take = () => {
    const from = video.current;
    if (!from) return;
    const canvas = Object.assign(document.createElement("canvas"), { width: from.videoWidth, height: from.videoHeight });
    canvas.getContext("2d")?.drawImage(from, 0, 0);
    canvas.toBlob((blob) => blob && addPhotos([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.95);
    onClose();
  };
  return (
    <Dialog title={texts.camera.title} onClose={onClose}>
      {isDenied ? (
        <p class="refusal" role="alert">
          {texts.camera.denied}
        </p>
      ) : (
        <>
          <video ref={video} class="camera" autoplay muted playsInline onLoadedData={() => setReady(true)} />
          <button type="button" class="primary wide" disabled={!isReady} onClick={take}>
            {texts.camera.take}
          </button>
        </>
      )}
    </Dialog>
  );
}
