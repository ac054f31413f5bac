"""Which of several faces a photo is of: the one that stands out, or the one that the caller names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.hyperdreambooth.faces.alignment import Face
from core.photos.framing import WHOLE, Place, place_of, share_outside
from core.photos.quality import sharpness, turn

DOMINATES = 1.5
"""As many times as prominent as the next face has to be the face that a photo is of."""

SHARP = 0.3
"""A face of this `sharpness` and more counts in full; half as sharp counts half."""

AT_THE_CORNER = 0.4
"""What a face in the corner of the photo loses of its prominence; at the middle it loses nothing."""

TURNED = 0.3
"""A face that is turned farther, see `turn`, counts less, down to 0.4 where the nose is beyond an eye."""

Choice = int | Place
"""Of faces: a number from 0, in the order of `find_faces`, or a box around it."""


def prominence(face: Face) -> float:
    """How much a photo is of a face: its size in pixels, less off the middle, and where it is blurred, cut, turned."""
    middle = np.array(place_of(face).centre)
    off = min(1.0, float(np.linalg.norm(middle - 0.5) / np.sqrt(0.5)))
    clear = min(1.0, sharpness(face) / SHARP)
    frontal = 1 - min(0.6, max(0.0, 2 * (abs(turn(face)) - TURNED)))
    return face.eye_distance * (1 - AT_THE_CORNER * off) * clear * frontal * (1 - share_outside(face, WHOLE))


def dominant(faces: Sequence[Face]) -> int | None:
    """The number of the face that stands out; None where none does, or there is none."""
    if len(faces) < 2:
        return 0 if faces else None
    found = np.array([prominence(face) for face in faces])
    first, second = np.argsort(-found, kind="stable")[:2].tolist()
    return int(first) if found[first] >= DOMINATES * found[second] else None


def chosen(faces: Sequence[Face], choice: Choice) -> int | None:
    """The number of the face that a choice names: of several in the box the most prominent; None where none is."""
    if isinstance(choice, int):
        return choice if 0 <= choice < len(faces) else None
    within = [number for number, face in enumerate(faces) if choice.contains(*place_of(face).centre)]
    return max(within, key=lambda number: prominence(faces[number]), default=None)
