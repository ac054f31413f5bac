"""What is measured on a face: its turn, sharpness and light. `reasons` says how much of each is needed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.hyperdreambooth.faces.alignment import Face

_SIZE = 64  # pixels of the aligned face that is measured
_WHITE = 250


def turn(face: Face) -> float:
    """How far the nose is from the midline of the eyes, in their distance: 0 is frontal, +-0.5 is under an eye."""
    right, left, nose = face.landmarks[:3]
    across = left - right
    return float((nose - (right + left) / 2) @ across / (across @ across))


def sharpness(face: Face) -> float:
    """The share of fine detail: variance of the Laplacian at 64 pixels by that at 32, over the middle of the face.

    A ratio, because a smooth face has little detail at either size. Medians: 0.50 for sharp photos, 0.37 for those
    of 64 pixels, 0.25 and 0.15 for those of 48 and 32 pixels scaled up; 0.1 is what is blurred beyond use.
    """
    grey = face.aligned(_SIZE).convert("L")
    return _laplacian_variance(grey) / max(_laplacian_variance(grey.reduce(2)), 1e-6)


def brightness(face: Face) -> float:
    """The mean over the middle of the face, of 255."""
    return float(_middle(face.aligned(_SIZE).convert("L")).mean())


def blown_out(face: Face) -> float:
    """The share of the middle of the face that is as good as white, where nothing can be seen."""
    return float((_middle(face.aligned(_SIZE).convert("L")) >= _WHITE).mean())


def _laplacian_variance(grey: Image.Image) -> float:
    """Over the middle of an aligned picture."""
    pixels = _middle(grey)
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((4 * pixels[1:-1, 1:-1] - around).var())


def _middle(grey: Image.Image) -> Float[np.ndarray, "h w"]:
    """The middle of an aligned picture: from above the eyes to the chin, without hair and background."""
    size = grey.width
    return np.asarray(grey, dtype=np.float64)[int(0.30 * size) : int(0.85 * size), int(0.2 * size) : int(0.8 * size)]
