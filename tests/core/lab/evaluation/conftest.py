from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from core.lab.evaluation.subjects import Subject


@pytest.fixture(scope="session")
def people() -> Callable[[int], list[Subject]]:
    def draw(count: int) -> list[Subject]:
        rng = np.random.default_rng(0)
        return [
            Subject(str(n), *(rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((16, 16, 3), (2, 16, 16, 3))))
            for n in range(count)
        ]

    return draw


@pytest.fixture(scope="session")
def mean_colour() -> Callable[[np.ndarray], np.ndarray]:
    """A stand-in for a recogniser: unit vectors from the pictures' mean colours."""

    def embed(pictures: np.ndarray) -> np.ndarray:
        vectors = pictures.reshape(len(pictures), -1, 3).mean(1) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed
