"""How alike two pictures are in structure: SSIM (Wang et al. 2004), also where light and colour do not count."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float, UInt8

from core.lab.evaluation.drawing import Pictures

WINDOW = 7
"""Pixels of the square window, as in scikit-image."""

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LUMA = np.array([0.299, 0.587, 0.114])


def ssim(one: Float[np.ndarray, "h w"], other: Float[np.ndarray, "h w"]) -> float:
    """Of two planes in 0..255: 1 where they are equal."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = _mean(a), _mean(b)
    spread_a, spread_b = _mean(a * a) - mean_a**2, _mean(b * b) - mean_b**2
    common = _mean(a * b) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + _C1) * (2 * common + _C2)
    return float(np.mean(alike / ((mean_a**2 + mean_b**2 + _C1) * (spread_a + spread_b + _C2))))


def with_photo(pictures: Pictures, photo: UInt8[np.ndarray, "h w 3"]) -> float:
    """The mean SSIM of the pictures' lightness with the photo's."""
    return float(np.mean([ssim(picture @ _LUMA, photo @ _LUMA) for picture in pictures]))


def between_seeds(pictures: Pictures) -> float:
    """1 - SSIM of two pictures after their channels were given the same mean and spread; the mean over all pairs.

    A brighter or tinted copy is no variety. NaN for fewer than two pictures.
    """
    pairs = list(combinations(pictures.astype(np.float64), 2))
    return float(np.mean([_difference(one, other) for one, other in pairs])) if pairs else float("nan")


def _difference(one: Float[np.ndarray, "h w 3"], other: Float[np.ndarray, "h w 3"]) -> float:
    channels = zip(one.transpose(2, 0, 1), other.transpose(2, 0, 1), strict=True)
    return 1 - float(np.mean([ssim(*_matched(a, b)) for a, b in channels]))


def _matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean and the spread that lie between theirs."""
    mean, spread = (one.mean() + other.mean()) / 2, (one.std() + other.std()) / 2
    first, second = ((plane - plane.mean()) / max(plane.std(), 1e-9) * spread + mean for plane in (one, other))
    return first, second


def _mean(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    """Over each window: differences of running sums."""
    for axis in (0, 1):
        sums = np.cumsum(np.insert(plane, 0, 0.0, axis=axis), axis=axis)
        count = plane.shape[axis] - WINDOW + 1
        plane = np.take(sums, range(WINDOW, WINDOW + count), axis) - np.take(sums, range(count), axis)
    averaged: np.ndarray = plane / WINDOW**2
    return averaged
