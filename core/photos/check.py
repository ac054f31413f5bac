"""Whether a photo can be used: its face, everything that speaks against it, and what to warn about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from core.errors import FaceTooSmall, NoFace, SeveralFaces
from core.hyperdreambooth.faces.alignment import Face
from core.hyperdreambooth.faces.detection import find_faces, has_face_cut_off
from core.hyperdreambooth.faces.dlib_recogniser import load_dlib_recogniser
from core.photos.choice import Choice, chosen, dominant
from core.photos.covers import load_covers
from core.photos.framing import WHOLE, place_of, share_outside
from core.photos.reasons import CUT_OFF, Reason, reasons_against
from core.photos.records import PhotoCheck, PhotoWarning

MIN_PICTURE = 32
"""Pixels of the shorter side below which no face is searched for."""

MAX_MADE_UP = 0.05
"""The share of the face, from forehead to chin, that may lie beyond the photo's edge without a warning."""

_SIDE = 192  # pixels of the picture that the recogniser is given

_COVERED = {
    "eyes": "The eyes are behind dark glasses and are not learnt: pictures show made-up eyes, or the glasses again.",
    "mouth": "Something covers the mouth, which is not learnt: pictures show a made-up one, or the cover again.",
}


def check_photo(image: Image.Image, choice: Choice | None = None) -> PhotoCheck:
    """The check of one photo whose orientation has been applied. ``choice`` says which of several faces is meant.

    Raises:
        SettingsError: the face detector is not installed.
        BundleError: the recogniser cannot be read.
    """
    if image.mode != "RGB":  # a copy of a large photo takes 100 MB
        image = image.convert("RGB")
    if min(image.size) < MIN_PICTURE:
        seen = f"The picture is {image.width} x {image.height} pixels."
        return PhotoCheck((Reason(FaceTooSmall, seen, "Send one of at least 64 x 64."),))
    faces = find_faces(image)
    places = tuple(place_of(face) for face in faces)
    number = dominant(faces) if choice is None else chosen(faces, choice)
    if number is None:
        return PhotoCheck((_no_face(image) if not faces else _none_of(faces, choice),), places=places)
    return _check(faces[number], PhotoCheck(places=places, number=number))


def check_crop(aligned: Image.Image) -> PhotoCheck:
    """Whom a photo shows that was accepted before, from the aligned face that was kept of it; there are no reasons.

    Raises BundleError: the recogniser cannot be read.
    """
    appearance = load_dlib_recogniser()(aligned.convert("RGB"))
    return PhotoCheck(covers=load_covers()(appearance.features), appearance=appearance)


def find_face(image: Image.Image) -> Face:
    """The one face of a photo that is good enough to personalize with. EXIF orientation must have been applied.

    Raises:
        PhotoRefused: the error of the first reason that speaks against it.
        SettingsError, BundleError: as `check_photo` does.
    """
    check = check_photo(image)
    if error := check.error():
        raise error
    assert check.face is not None, "without a reason there is a face"
    return check.face


_NONE = Reason(NoFace, "No face was found.", "Send a photo that shows one face from the front, upright and well lit.")


def _no_face(image: Image.Image) -> Reason:
    return CUT_OFF if has_face_cut_off(image) else _NONE


def _none_of(faces: Sequence[Face], choice: Choice | None) -> Reason:
    if choice is None:
        return Reason(
            SeveralFaces, f"{len(faces)} faces were found.", "Crop the photo to one person, or say which face is meant."
        )
    return Reason(NoFace, f"The chosen face is none of the {len(faces)} that were found.", "Choose one of these.")


def _check(face: Face, found: PhotoCheck) -> PhotoCheck:
    appearance = load_dlib_recogniser()(face.aligned(_SIDE))
    covers = load_covers()(appearance.features)
    return replace(
        found,
        reasons=reasons_against(face),
        warnings=tuple(_warnings(face, covers, len(found.places))),
        covers=covers,
        face=face,
        appearance=appearance,
    )


def _warnings(face: Face, covers: tuple[str, ...], count: int) -> list[PhotoWarning]:
    warnings = [PhotoWarning(f"{cover}-covered", _COVERED[cover]) for cover in covers]
    if share_outside(face, WHOLE) > MAX_MADE_UP:
        detail = "Forehead, chin or a cheek lies beyond the photo's edge: pictures show a made-up one."
        warnings.append(PhotoWarning("face-at-the-edge", detail))
    if count > 1:
        warnings.append(PhotoWarning("other-faces", f"{count} faces are in the photo; only one of them is learnt."))
    return warnings
