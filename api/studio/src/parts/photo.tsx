/** A chosen photo: the faces in it, the crop that will be used, and everything that speaks against it. */
import { useEffect, useRef } from "preact/hooks";
import type { FaceBox } from "../api/types";
import { chooseFace, removePhoto, type Chosen } from "../state/photos";
import { texts } from "../texts";
import { Icon } from "./basics";

export function PhotoCard({ photo, number }: { photo: Chosen; number: number }) {
  const { check } = photo;
  const faces = check?.faces ?? [];
  const several = faces.length > 1;
  const state = !check ? "is-checking" : check.accepted ? "is-accepted" : "is-refused";
  return (
    <article class={`photo ${state}`} aria-busy={!check}>
      <div class="photo-picture">
        <img src={photo.url} alt={`${texts.start.photoAlt}, ${number}`} />
        {faces.map((face, index) => (
          <Box key={index} face={face} isUsed={index === check?.face} label={several ? (index === check?.face ? texts.start.faceUsed(index) : texts.start.face(index)) : null} onChoose={() => chooseFace(photo.id, index)} />
        ))}
        <button type="button" class="remove square" aria-label={texts.start.remove(`${texts.start.photoAlt} ${number}`)} onClick={() => removePhoto(photo.id)}>
          <Icon name="close" />
        </button>
      </div>
      <div class="photo-said" role="status">
        {!check && <p class="soft">{texts.start.checking}</p>}
        {check && (
          <p class="verdict">
            <Icon name={check.accepted ? "check" : "close"} />
            {check.accepted ? texts.start.accepted : several && check.face === null ? texts.start.severalFaces(faces.length) : texts.start.refused}
          </p>
        )}
        {check?.crop && (
          <figure class="crop">
            <img src={check.crop} alt={texts.start.cropAlt} />
            <figcaption>{texts.start.used}</figcaption>
          </figure>
        )}
        {!!check?.reasons.length && (
          <ul class="reasons">
            {check.reasons.map((reason, index) => (
              <li key={index}>
                <strong>{reason.message}</strong> {reason.advice}
              </li>
            ))}
          </ul>
        )}
        {!!check?.warnings.length && (
          <ul class="warnings">
            {check.warnings.map((warning, index) => (
              <li key={index}>{warning.message}</li>
            ))}
          </ul>
        )}
      </div>
    </article>
  );
}

function Box({ face, isUsed, label, onChoose }: { face: FaceBox; isUsed: boolean; label: string | null; onChoose(): void }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    const sides = { left: face.left, top: face.top, right: 1 - face.right, bottom: 1 - face.bottom };
    for (const [side, share] of Object.entries(sides)) box.current?.style.setProperty(side, `${Math.max(0, share) * 100}%`);
  }, [face]);
  const name = `face-box ${isUsed ? "is-used" : ""}`;
  if (!label) return <span ref={box as never} class={name} aria-hidden="true" />;
  return <button ref={box as never} type="button" class={name} aria-pressed={isUsed} aria-label={label} onClick={onChoose} />;
}
