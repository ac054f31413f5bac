"""Synthetic photos for tests: a drawn head that the face detector finds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[float, float, float]

_HAIR: Colour = (45, 32, 25)
_SKIN: Colour = (222, 178, 150)
_BACKGROUND: Colour = (110, 120, 128)
_SHAPES: tuple[tuple[float, float, float, float, Colour, float, float], ...] = (
    # centre x, y, radius x, y (fractions of the side), colour, how opaque, how soft its edge
    (0.5, 1.05, 0.42, 0.2, (60, 70, 110), 1.0, 0.04),  # shoulders
    (0.5, 0.44, 0.235, 0.29, _HAIR, 1.0, 0.05),
    (0.5, 0.82, 0.1, 0.14, (178, 142, 120), 1.0, 0.05),  # neck
    (0.5, 0.53, 0.19, 0.27, _SKIN, 1.0, 0.04),
    (0.62, 0.56, 0.1, 0.24, (170, 125, 105), 0.4, 0.5),  # the side away from the light
    (0.5, 0.27, 0.19, 0.07, _HAIR, 1.0, 0.15),
    (0.525, 0.55, 0.012, 0.08, (140, 95, 80), 0.35, 0.4),  # nose: ridge, wings, tip, nostrils
    (0.5, 0.603, 0.04, 0.018, (170, 115, 98), 0.5, 0.35),
    (0.497, 0.585, 0.018, 0.02, (250, 220, 200), 0.4, 0.4),
    (0.482, 0.61, 0.009, 0.005, (60, 35, 30), 0.8, 0.3),
    (0.518, 0.61, 0.009, 0.005, (60, 35, 30), 0.8, 0.3),
    (0.5, 0.672, 0.062, 0.011, (165, 85, 80), 0.9, 0.25),  # lips, and the line between them
    (0.5, 0.69, 0.05, 0.014, (190, 100, 95), 0.9, 0.25),
    (0.5, 0.679, 0.058, 0.003, (90, 40, 40), 0.8, 0.4),
)
_EYE: tuple[tuple[float, float, float, float, Colour, float, float], ...] = (
    (0.0, 0.485, 0.06, 0.04, (120, 80, 65), 0.35, 0.3),  # socket
    (0.0, 0.445, 0.05, 0.010, (55, 38, 30), 0.9, 0.3),  # brow
    (0.0, 0.487, 0.036, 0.016, (235, 230, 225), 1.0, 0.12),
    (0.0, 0.487, 0.017, 0.017, (60, 42, 32), 1.0, 0.1),
    (0.0, 0.487, 0.007, 0.007, (8, 8, 8), 1.0, 0.1),
    (0.0, 0.473, 0.04, 0.006, (40, 28, 24), 0.8, 0.3),  # lid
)


def drawn_face(side: int = 320) -> Image.Image:
    """A drawn head and shoulders, `side` x `side` pixels."""
    y, x = np.mgrid[0:side, 0:side] / side
    pixels = np.full((side, side, 3), _BACKGROUND, dtype=np.float64)
    eyes = [(at + cx, *rest) for at in (0.42, 0.58) for cx, *rest in _EYE]
    for cx, cy, rx, ry, colour, opacity, softness in [*_SHAPES, *eyes]:
        distance = np.hypot((x - cx) / rx, (y - cy) / ry)
        mask = opacity / (1 + np.exp(np.clip((distance - 1) / softness, -50, 50)))[..., None]
        pixels = pixels * (1 - mask) + np.array(colour) * mask
    grain = np.random.default_rng(0).normal(0, 3, pixels.shape)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """One picture of several of the same height, beside each other."""
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures], axis=1))


def as_file(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()
