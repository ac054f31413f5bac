"""How much of a face the photo's edge cuts away, and where in the photo a face is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from core.hyperdreambooth.faces.alignment import FRAME, Face, similarity, transformed

FEATURES = (0.28, 0.38, 0.72, 0.77)
"""Left, top, right and bottom of brows, eyes, nose and mouth, as fractions of an aligned picture."""

WHOLE = (0.22, 0.27, 0.78, 0.88)
"""The same from forehead to chin and from cheek to cheek."""

_POINTS = 24  # a side of the grid on which areas are measured


@dataclass(frozen=True)
class Place:
    """A box in a photo that is upright, as fractions of its width and height: 0, 0 is the top left corner."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def contains(self, x: float, y: float) -> bool:
        """Whether a point, as fractions, lies in the box."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


def place_of(face: Face) -> Place:
    """The upright box around a face from forehead to chin, within the photo."""
    corners = np.array([(x, y) for x in WHOLE[::2] for y in WHOLE[1::2]])
    inside = np.clip(_in_photo(face, corners) / face.image.size, 0, 1)
    left, top = inside.min(0).round(4).tolist()
    right, bottom = inside.max(0).round(4).tolist()
    return Place(left, top, right, bottom)


def has_landmark_outside(face: Face) -> bool:
    """Whether an eye, the nose or a corner of the mouth lies beyond the photo's edge."""
    return bool((~_inside(face, face.landmarks)).any())


def share_outside(face: Face, box: tuple[float, float, float, float]) -> float:
    """The share, 0..1, of a box of the aligned picture that the photo does not show."""
    left, top, right, bottom = box
    steps = (np.arange(_POINTS) + 0.5) / _POINTS
    x, y = np.meshgrid(left + (right - left) * steps, top + (bottom - top) * steps)
    points = _in_photo(face, np.stack([x.ravel(), y.ravel()], axis=1))
    return 1 - float(_inside(face, points).mean())


def _in_photo(face: Face, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """From fractions of the aligned picture to pixels of the photo."""
    return transformed(similarity(FRAME, face.landmarks), points)


def _inside(face: Face, points: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    within: Bool[np.ndarray, " n"] = np.all((points >= 0) & (points <= np.array(face.image.size)), axis=1)
    return within
