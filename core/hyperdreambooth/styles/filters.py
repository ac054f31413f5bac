"""The few picture operations the training styles are made of.

Everything here works on *planes*: float32 arrays [n, c, h, w] with values about 0..1, so that a blur is two small
matrix products for a whole batch. Lengths are given in pixels of a 64-pixel picture and scaled to the real one, so that
a style is the same at any size. Nothing is random: textures come from fixed seeds, computed once per picture size.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.floating]
"""float32 while running; NumPy's annotations lose the width on the way through arithmetic."""

REFERENCE_SIZE = 64
"""The side, in pixels, of the picture in which the lengths of this module are given."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32).reshape(1, 3, 1, 1)


def pixels(length: float, size: int) -> int:
    """A length in reference pixels as whole pixels of a picture of this size, at least 1."""
    return max(1, round(length * size / REFERENCE_SIZE))


def clamp(planes: Planes) -> Planes:
    """Values outside 0..1 brought back to its ends."""
    return np.asarray(np.clip(planes, 0, 1))


def luma(planes: Planes) -> Planes:
    """Brightness [n, 1, h, w] of colour planes [n, 3, h, w] (Rec. 601 weights)."""
    return np.asarray(np.sum(planes * _LUMA, axis=1, keepdims=True, dtype=np.float32))


def even_tones(grey: Planes, spread: float = 0.23, middle: float = 0.5) -> Planes:
    """Give every picture the same mean and spread of brightness, so that dark photos survive a style too."""
    mean = grey.mean(axis=(2, 3), keepdims=True)
    deviation = grey.std(axis=(2, 3), keepdims=True)
    return clamp((grey - mean) * (spread / (deviation + 0.02)) + middle)


def saturate(planes: Planes, amount: float) -> Planes:
    """Colours moved away from grey (amount > 1) or towards it (amount < 1)."""
    grey = luma(planes)
    return clamp(grey + (planes - grey) * np.float32(amount))


def step(values: Planes, low: float, high: float) -> Planes:
    """0 below `low`, 1 above `high` and a straight ramp between (the reverse ramp when low > high)."""
    return clamp((values - np.float32(low)) * np.float32(1 / (high - low)))


def mix(first: Planes, second: Planes | float, share: Planes | float) -> Planes:
    """`first` where share is 0, `second` where it is 1."""
    return np.asarray(first + (second - first) * share, dtype=np.float32)


@lru_cache(maxsize=128)
def _gaussian(size: int, sigma: float) -> Planes:
    """Matrix [size, size] that blurs along one axis; each row sums to 1, so borders do not darken."""
    at = np.arange(size, dtype=np.float64)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=128)
def _box(size: int, radius: int) -> Planes:
    """Matrix [size, size] that averages 2 * radius + 1 neighbours along one axis."""
    at = np.arange(size)
    weights = (np.abs(at[:, None] - at[None, :]) <= radius).astype(np.float64)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def blur(planes: Planes, sigma: float) -> Planes:
    """Gaussian blur; sigma in reference pixels."""
    height, width = planes.shape[-2:]
    scale = min(height, width) / REFERENCE_SIZE
    return _gaussian(height, sigma * scale) @ planes @ _gaussian(width, sigma * scale).T


def box_blur(planes: Planes, radius: int) -> Planes:
    """Mean of a square of 2 * radius + 1; radius in real pixels."""
    height, width = planes.shape[-2:]
    return _box(height, radius) @ planes @ _box(width, radius).T


def gradient(grey: Planes) -> tuple[Planes, Planes]:
    """Central differences (down, right) [n, 1, h, w], per reference pixel."""
    scale = np.float32(min(grey.shape[-2:]) / REFERENCE_SIZE / 2)
    padded = np.pad(grey, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    return down * scale, right * scale


def edges(grey: Planes, sigma: float = 0.7) -> Planes:
    """Strength of the contours, about 0..1, symmetric for light-to-dark and dark-to-light."""
    down, right = gradient(blur(grey, sigma))
    return np.sqrt(down * down + right * right)


def ink_lines(grey: Planes, fine: float = 0.6, coarse: float = 1.6, gain: float = 12.0) -> Planes:
    """1 where the picture is darker than what surrounds it (eyes, mouth, outlines): a difference of Gaussians."""
    return clamp((blur(grey, coarse) - blur(grey, fine)) * np.float32(gain))


def emboss(grey: Planes, sigma: float = 0.6) -> Planes:
    """Light from the upper left on the picture read as a relief; around 0, about -1..1."""
    down, right = gradient(blur(grey, sigma))
    return (down + right) * np.float32(-2)


def brush(planes: Planes, radius: int) -> Planes:
    """Kuwahara's filter on colour planes: each pixel takes the mean of the calmest of the four squares around it.

    The squares are 2 * radius + 1 wide and have the pixel in a corner; radius in real pixels.
    """
    grey = luma(planes)
    means = box_blur(np.concatenate([planes, grey, grey * grey], axis=1), radius)
    unrest = means[:, 4:5] - means[:, 3:4] ** 2
    stack = np.concatenate([means[:, :3], unrest], axis=1)
    height, width = planes.shape[-2:]
    padded = np.pad(stack, ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="edge")
    best = padded[:, :, :height, :width]
    for top, left in ((0, 2 * radius), (2 * radius, 0), (2 * radius, 2 * radius)):
        other = padded[:, :, top : top + height, left : left + width]
        best = np.where(other[:, 3:4] < best[:, 3:4], other, best)
    return best[:, :3]


def tint(grey: Planes, *stops: tuple[float, str]) -> Planes:
    """Colour planes from brightness by a ramp of (brightness, "#rrggbb") stops in rising order."""
    table = _ramp(stops)
    index = np.clip(grey[:, 0] * 255, 0, 255).astype(np.uint8)
    return np.stack([channel[index] for channel in table], axis=1)


@lru_cache(maxsize=64)
def _ramp(stops: tuple[tuple[float, str], ...]) -> Planes:
    """Table [3, 256] of a ramp of colours."""
    positions = [position for position, _ in stops]
    colours = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for _, code in stops])
    at = np.linspace(0, 1, 256)
    return np.stack([np.interp(at, positions, colours[:, c]) for c in range(3)]).astype(np.float32)


@lru_cache(maxsize=64)
def grain(height: int, width: int, down: float, right: float, seed: int) -> Planes:
    """A fixed texture [1, 1, h, w] of mean 0 and deviation 1, with marks of `down` by `right` reference pixels."""
    scale = min(height, width) / REFERENCE_SIZE
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    smooth = _gaussian(height, max(0.3, down * scale)) @ noise @ _gaussian(width, max(0.3, right * scale)).T
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)[None, None]


@lru_cache(maxsize=16)
def hatching(height: int, width: int, pitch: float, angle: float) -> Planes:
    """Parallel strokes [1, 1, h, w] as a wave in 0..1; pitch in reference pixels, angle in degrees."""
    scale = min(height, width) / REFERENCE_SIZE
    y, x = np.mgrid[:height, :width] / scale
    turn = math.radians(angle)
    wave = 0.5 + 0.5 * np.sin((x * math.cos(turn) + y * math.sin(turn)) * (2 * math.pi / pitch))
    return np.asarray(wave, dtype=np.float32)[None, None]


@lru_cache(maxsize=16)
def dots(height: int, width: int, pitch: float) -> Planes:
    """A screen of dots at 45 degrees [1, 1, h, w] in 0..1: a picture darker than the screen prints ink there."""
    first, second = hatching(height, width, pitch, 45.0), hatching(height, width, pitch, 135.0)
    return (first + second) / 2
