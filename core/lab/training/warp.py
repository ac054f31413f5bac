"""Faces of nobody out of photos of people: everything on them is moved a little, smoothly, and lit otherwise.

Where people are few, a hypernetwork learns them by heart; a face whose eyes are further apart, whose nose is longer and
whose skin is lighter is another person to it, with all that a photo has.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

GRID = 5
"""Points on a side that are moved apart from each other; what lies between them follows smoothly."""

SHIFT, STRETCH = 0.03, 0.05
"""Spread of what a point is moved by, in halves of the side, and of the stretching along each axis."""

LIGHT, COLOUR = 0.12, 0.04
"""Spread of the logarithm of the brightness, and of that of each colour's."""


def warp(
    pictures: UInt8[np.ndarray, "n h w 3"], side: int, *, seed: int, batch: int = 512
) -> UInt8[np.ndarray, "n side side 3"]:
    """Another face out of each picture, ``side`` pixels wide; sharp where the pictures are larger than that."""
    generator = torch.Generator().manual_seed(seed)
    starts = range(0, len(pictures), batch)
    parts = [_warp(torch.tensor(pictures[start : start + batch]), side, generator) for start in starts]
    return torch.cat(parts).numpy()


def _warp(pictures: UInt8[Tensor, "n h w 3"], side: int, generator: torch.Generator) -> UInt8[Tensor, "n side side 3"]:
    count = len(pictures)

    def spread(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    tint = (LIGHT * spread(1, 1, 1) + COLOUR * spread(3, 1, 1)).exp()
    lit = pixels.clamp(min=1e-4) ** tint
    places = _places(pixels.shape[2:], SHIFT * spread(2, GRID, GRID), 1 + STRETCH * spread(2))
    moved = nn.functional.grid_sample(lit, places, mode="bicubic", padding_mode="reflection", align_corners=False)
    smaller = nn.functional.interpolate(moved, size=(side, side), mode="bicubic", antialias=True)
    return (255 * smaller).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _places(
    size: torch.Size, shifts: Float[Tensor, "n 2 grid grid"], stretches: Float[Tensor, "n 2"]
) -> Float[Tensor, "n h w 2"]:
    """Where each pixel is taken from, in [-1, 1]."""
    plain = torch.zeros(len(shifts), 2, 3)
    plain[:, 0, 0], plain[:, 1, 1] = stretches.T
    straight = nn.functional.affine_grid(plain, [len(shifts), 1, *size], align_corners=False)
    smooth = nn.functional.interpolate(shifts, size=tuple(size), mode="bicubic", align_corners=True)
    return straight + smooth.permute(0, 2, 3, 1)
