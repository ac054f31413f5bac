"""The faces of a photo, each with its landmarks.

Every picture is searched twice. The first pass finds faces anywhere, in a small copy of the picture. The second pass
takes each of them alone, upright and at one size, and its mirror image with it: it confirms the face and places the
landmarks (their distance from the right framing falls from 1.8 to 1.4 % of the frame).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.hyperdreambooth.faces.alignment import FRAME, Face, similarity, transformed, warp
from core.hyperdreambooth.faces.centerface import Detection, detect

MIN_SCORE = 0.5
"""Of the first pass. Faces score 0.8 and more in 99 of 100 pictures; the loudest object seen scored 0.56, once."""

CONFIRM_SCORE = 0.3
"""Of the second pass, whose scale does not suit every face: a wide open mouth costs half the score there."""

BYSTANDER = 0.5
"""A face smaller than this part of the largest one (in width, so: about twice as far away) is ignored."""

_FIRST_PASSES = ((320, 0.25), (640, 0.25))  # longest side in pixels, and the border around it as a part of that
_SECOND_PASS, _MARGIN = 256, 0.25  # side in pixels, and the border around the frame as a part of the frame
_SHARED = 3  # landmarks of one face between those of another from which on they are the same face
_MOST = 12  # where counting stops: a crowd is refused like a dozen, in the same time


def find_faces(image: Image.Image) -> list[Face]:
    """Every face of an RGB photo that is not a bystander, largest first; however small, blurred or turned.

    Raises:
        SettingsError: the detector is not installed.
    """
    for side, border in _FIRST_PASSES:
        faces = _once(_confirmed(image, _first_pass(image, side, border)))
        if faces:
            return faces
    return []


def face_in_frame(aligned: Image.Image) -> Face | None:
    """The face of a square picture that is aligned already, by the second pass alone; None where it shows none."""
    whole = np.array([0.0, 0.0, *aligned.size])
    return _second_pass(aligned, Detection(whole, 1.0, FRAME * aligned.width))


def has_face_cut_off(image: Image.Image) -> bool:
    """Whether something like a face, a landmark of which lies beyond the photo's edge, was seen and not confirmed."""
    side, border = _FIRST_PASSES[0]
    found = _first_pass(image, side, border, threshold=CONFIRM_SCORE)
    return any(((each.landmarks < 0) | (each.landmarks > image.size)).any() for each in found)


def _first_pass(image: Image.Image, side: int, border: float, *, threshold: float = MIN_SCORE) -> list[Detection]:
    """Faces in a copy of ``side`` pixels with a border, so that a face that fills the picture has a surrounding."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    edge = round(side * border)
    padded = np.pad(np.asarray(small), ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    found = detect(Image.fromarray(padded), threshold=threshold)
    return [Detection((d.box - edge) / scale, d.score, (d.landmarks - edge) / scale) for d in found]


def _confirmed(image: Image.Image, candidates: list[Detection]) -> Iterator[Face]:
    """The candidates that the second pass confirms, largest first, down to bystanders."""
    largest = 0.0
    for candidate in sorted(candidates, key=lambda candidate: -candidate.size)[:_MOST]:
        if candidate.size < BYSTANDER * largest:
            return
        face = _second_pass(image, candidate)
        if face is not None:
            largest = max(largest, face.size)
            yield face


def _second_pass(image: Image.Image, candidate: Detection) -> Face | None:
    """The candidate with landmarks from itself alone and its mirror image; None if either shows no face."""
    frame = (FRAME + _MARGIN) * _SECOND_PASS / (1 + 2 * _MARGIN)
    there = similarity(candidate.landmarks, frame)
    close = warp(image, there, _SECOND_PASS, border="edge")
    mirrored = close.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = _nearest(detect(close, threshold=CONFIRM_SCORE), frame)
    seen_mirrored = _nearest([_mirror(d, _SECOND_PASS) for d in detect(mirrored, threshold=CONFIRM_SCORE)], frame)
    if seen is None or seen_mirrored is None:
        return None
    landmarks = transformed(np.linalg.inv(there), (seen.landmarks + seen_mirrored.landmarks) / 2)
    return Face(image, landmarks, candidate.box, (seen.score + seen_mirrored.score) / 2)


def _nearest(found: list[Detection], frame: Float[np.ndarray, "5 2"]) -> Detection | None:
    """The detection whose landmarks are nearest to the frame's, within an eye distance; None if there is none."""
    nearest = min(found, key=lambda d: float(np.abs(d.landmarks - frame).mean()), default=None)
    eye_distance = float(frame[1, 0] - frame[0, 0])
    return nearest if nearest and np.abs(nearest.landmarks - frame).mean() < eye_distance else None


def _once(faces: Iterator[Face]) -> list[Face]:
    """Two candidates that turned out to be the same face are one."""
    found: list[Face] = []
    for face in faces:
        if not any(_is_same(face, other) for other in found):
            found.append(face)
    return found


def _is_same(face: Face, larger: Face) -> bool:
    """Whether the landmarks of two faces lie on each other, or one's lie within those of the other."""
    near = np.abs(face.landmarks - larger.landmarks).mean() <= larger.eye_distance / 2
    low, high = larger.landmarks.min(0), larger.landmarks.max(0)
    return bool(near or ((face.landmarks > low) & (face.landmarks < high)).all(1).sum() >= _SHARED)


def _mirror(detection: Detection, width: int) -> Detection:
    left, top, right, bottom = detection.box
    landmarks = np.array([width, 0]) + detection.landmarks * np.array([-1, 1])
    return Detection(np.array([width - right, top, width - left, bottom]), detection.score, landmarks[[1, 0, 2, 4, 3]])
