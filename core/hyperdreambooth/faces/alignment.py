"""The frame that faces are cut out in (FFHQ's), and cutting them out: similarity transforms, antialiased."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

FRAME = np.array([(0.377, 0.467), (0.623, 0.467), (0.500, 0.623), (0.387, 0.713), (0.613, 0.713)])
"""Where the landmarks lie in an aligned picture, as fractions of its side: eyes, nose, mouth corners, image-left
first.
"""

Border = Literal["edge", "blurred"]
"""What lies beyond the photo: its last pixel again, or that blurred. Never its mirror image: that has features."""

_BLUR = 0.03  # radius beyond the photo, as a fraction of the side of what is cut out


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo: five landmarks (x, y), a box (left, top, right, bottom) in pixels, and a score in 0..1."""

    image: Image.Image = field(repr=False)
    landmarks: Float[np.ndarray, "5 2"]
    box: Float[np.ndarray, " 4"]
    score: float

    @property
    def size(self) -> float:
        """The side of a square as large as the box, in pixels."""
        width, height = self.box[2:] - self.box[:2]
        return float(np.sqrt(width * height))

    @property
    def eye_distance(self) -> float:
        """Pixels of the photo between the eyes, as if the face were frontal: from the frame that fits all landmarks."""
        transform = similarity(self.landmarks, FRAME)
        return float((FRAME[1, 0] - FRAME[0, 0]) / np.sqrt(np.linalg.det(transform)))

    def aligned(self, size: int) -> Image.Image:
        """The face in the frame, ``size`` x ``size`` pixels, upright; beyond its borders the photo goes on blurred."""
        return warp(self.image, similarity(self.landmarks, FRAME * size), size, border="blurred")


def similarity(points: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    """The rotation, scale and shift that takes ``points`` closest to ``onto`` (least squares; Umeyama 1991)."""
    centre, onto_centre = points.mean(0), onto.mean(0)
    spread, onto_spread = points - centre, onto - onto_centre
    u, s, vt = np.linalg.svd(onto_spread.T @ spread)
    proper = np.array([1.0, np.sign(np.linalg.det(u @ vt))])  # a face is never mirrored
    rotation = (u * proper) @ vt
    transform = np.eye(3)
    transform[:2, :2] = rotation * (s @ proper / (spread**2).sum())
    transform[:2, 2] = onto_centre - transform[:2, :2] @ centre
    return transform


def transformed(transform: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The points after an affine transform."""
    moved: Float[np.ndarray, "n 2"] = points @ transform[:2, :2].T + transform[:2, 2]
    return moved


def warp(image: Image.Image, transform: Float[np.ndarray, "3 3"], size: int, *, border: Border) -> Image.Image:
    """The square of ``size`` pixels that ``transform`` takes from the picture. Reduced first, oversampled twice."""
    back = np.linalg.inv(transform)
    corners = transformed(back, np.array([(0.0, 0.0), (size, 0.0), (size, size), (0.0, size)]))
    factor = max(1, round(float(np.sqrt(abs(np.linalg.det(back)))) / 2))
    part, corner = _part(image, corners.min(0), corners.max(0), factor, border)
    # from the twice as large square into the reduced part: out / 2 -> picture -> part
    inverse = np.diag([1 / factor, 1 / factor, 1.0]) @ _shift(-corner) @ back @ np.diag([0.5, 0.5, 1.0])
    large = part.transform(
        (2 * size, 2 * size), Image.Transform.AFFINE, tuple(inverse[:2].ravel()), Image.Resampling.BICUBIC
    )
    return large.resize((size, size), Image.Resampling.LANCZOS)


def _part(
    image: Image.Image, low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"], factor: int, border: Border
) -> tuple[Image.Image, Float[np.ndarray, " 2"]]:
    """The picture between two corners and a little more, reduced by ``factor``, extended where it leaves the picture.

    Also returns the corner of the part in pixels of the picture.
    """
    cells = -(-np.array(image.size) // factor)
    first = np.floor(low / factor).astype(int) - 4  # bicubic interpolation reads two pixels further
    last = np.ceil(high / factor).astype(int) + 4
    inside_first = np.clip(first, 0, cells - 1)
    inside_last = np.clip(last, inside_first + 1, cells)
    box = (*(inside_first * factor).tolist(), *np.minimum(inside_last * factor, image.size).tolist())
    left, top = np.maximum(inside_first - first, 0)
    right, bottom = np.maximum(last - inside_last, 0)
    inside = image.reduce(factor, box)
    around = Image.fromarray(np.pad(np.asarray(inside), ((top, bottom), (left, right), (0, 0)), mode="edge"))
    if border == "blurred" and around.size != inside.size:
        around = around.filter(ImageFilter.GaussianBlur(_BLUR * max(around.size)))
        around.paste(inside, (int(left), int(top)))
    return around, (first * factor).astype(np.float64)


def _shift(by: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "3 3"]:
    transform = np.eye(3)
    transform[:2, 2] = by
    return transform
