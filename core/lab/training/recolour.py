"""Pictures in colours that photos of faces do not have, so that an autoencoder gives green back as green."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8

MIXED = 0.35
"""The spread of what a colour channel gets of the others."""


def recolour(pictures: UInt8[np.ndarray, "n h w 3"], generator: torch.Generator) -> UInt8[np.ndarray, "n h w 3"]:
    """Each picture with its colour channels mixed and scaled, or with a rectangle of some colour laid over it."""
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    done = [_mixed(each, rng) if rng.random() < 0.5 else _covered(each, rng) for each in pictures.astype(np.float32)]
    return np.stack(done).clip(0, 255).round().astype(np.uint8)


def _mixed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mixing = np.eye(3) + rng.normal(0, MIXED, (3, 3))
    mixing *= rng.uniform(0.6, 1.4, (3, 1)) / mixing.sum(1, keepdims=True).clip(min=0.2)
    return np.asarray(picture @ mixing.T)


def _covered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Now and then all of it, nearly."""
    height, width = picture.shape[:2]
    colour, opacity = rng.uniform(0, 255, 3), rng.uniform(0.5, 1)
    top, left = rng.integers(height), rng.integers(width)
    bottom, right = top + rng.integers(8, height), left + rng.integers(8, width)
    if rng.random() < 0.1:
        return np.asarray(0.1 * picture + 0.9 * colour)
    covered = picture.copy()
    covered[top:bottom, left:right] = (1 - opacity) * covered[top:bottom, left:right] + opacity * colour
    return covered
