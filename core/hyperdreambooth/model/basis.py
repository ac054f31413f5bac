"""The random numbers of the frozen basis, with NumPy alone: the API multiplies weights out of it without torch.

The numbers are those of ``torch.randn(..., dtype=torch.float64)`` on a CPU generator: a Mersenne twister, two words of
32 bits a number, Box and Muller's method over blocks of 16. They are part of the ``.lidb`` format, so they are written
down here and depend on no library's choice of a generator.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.target import Target

_BLOCK = 16


def normal_matrices(target: Target, lidb: LidbConfig) -> tuple[Float64[np.ndarray, "n a"], Float64[np.ndarray, "m b"]]:
    """The standard normal matrices that a target's bases are made from; a function of seed, name and shape alone."""
    key = hashlib.sha256(f"{lidb.seed}/{target.name}/{target.n}x{target.m}".encode()).digest()
    words = _twister((int.from_bytes(key[:8], "big") >> 1) & 0xFFFFFFFF)
    a, b = target.capped(lidb.a, lidb.b)
    left = _normal(words, target.n * a).reshape(target.n, a)
    return left, _normal(words, target.m * b).reshape(target.m, b)


def multiply_out(
    target: Target,
    lidb: LidbConfig,
    inner_left: Float32[np.ndarray, "a rank"],
    inner_right: Float32[np.ndarray, "rank b"],
) -> tuple[Float32[np.ndarray, "n rank"], Float32[np.ndarray, "rank m"]]:
    """``A_aux A`` and ``B B_aux`` without making the bases, equal to 1e-6 and quicker.

    The positive R of a QR decomposition is the Cholesky factor of ``X^T X``, so that ``Q A = X (R^-1 A)``.
    """
    left, right = normal_matrices(target, lidb)
    outer_left, outer_right = _through(left, inner_left), _through(right, inner_right.T).T
    return outer_left.astype(np.float32), np.ascontiguousarray(outer_right, dtype=np.float32)


def _through(
    matrix: Float64[np.ndarray, "rows columns"], inner: Float32[np.ndarray, "columns rank"]
) -> Float64[np.ndarray, "rows rank"]:
    lower = np.linalg.cholesky(matrix.T @ matrix)
    through: np.ndarray = matrix @ np.linalg.solve(lower.T, inner.astype(np.float64))
    return through


def _twister(seed: int) -> np.random.MT19937:
    words = np.random.MT19937()
    seeded: Any = np.random.RandomState(seed).get_state(legacy=False)  # its seeding of 2002
    words.state = seeded
    return words


def _normal(words: np.random.MT19937, count: int) -> Float64[np.ndarray, " count"]:
    """``count`` numbers. An incomplete block at the end is drawn again, over the last 16 numbers."""
    if count < _BLOCK:
        raise ValueError(f"a layer of {count} numbers is too small for a basis")
    whole = count - count % _BLOCK
    uniform = _uniform(words, count)
    drawn = np.empty(count)
    drawn[:whole] = _box_muller(uniform[:whole])
    if count % _BLOCK:
        drawn[-_BLOCK:] = _box_muller(_uniform(words, _BLOCK))
    return drawn


def _uniform(words: np.random.MT19937, count: int) -> Float64[np.ndarray, " count"]:
    """In [0, 1): the lower 53 bits of two words, the first one above the second."""
    raw = words.random_raw(2 * count)
    joined = (raw[0::2] << np.uint64(32)) | raw[1::2]
    numbers: np.ndarray = (joined & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
    return numbers


def _box_muller(uniform: Float64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
    halves = uniform.reshape(-1, 2, _BLOCK // 2)
    radius, angle = np.sqrt(-2 * np.log1p(-halves[:, 0])), 2 * np.pi * halves[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
