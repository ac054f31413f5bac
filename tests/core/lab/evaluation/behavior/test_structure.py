"""SSIM on pictures whose answer is known: a copy, a tinted copy, another picture."""

from __future__ import annotations

import numpy as np
import pytest

from core.lab.evaluation.behavior.structure import between_seeds, ssim, with_photo

RNG = np.random.default_rng(0)
PHOTO, OTHER = (np.kron(RNG.integers(40, 160, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(2))


def test_a_copy_is_one_and_another_picture_is_not():
    assert with_photo(np.stack([PHOTO, PHOTO]), PHOTO) == pytest.approx(1)
    assert with_photo(OTHER[None], PHOTO) < 0.2
    assert ssim(np.zeros((16, 16)), np.full((16, 16), 255.0)) < 0.01


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture,
        lambda picture: (picture * 1.5).astype(np.uint8),
        lambda picture: picture // 2 + 20,
        lambda picture: (picture * [1.2, 0.6, 1.0]).astype(np.uint8),
    ],
    ids=["equal", "brighter", "paler", "tinted"],
)
def test_light_and_colour_are_no_variety(change):
    assert between_seeds(np.stack([PHOTO, change(PHOTO)])) == pytest.approx(0, abs=0.01)


def test_another_structure_is():
    assert between_seeds(np.stack([PHOTO, OTHER])) > 0.8
    moved = between_seeds(np.stack([PHOTO, np.roll(PHOTO, 1, axis=1)]))
    assert 0.05 < moved < between_seeds(np.stack([PHOTO, np.roll(PHOTO, 2, axis=1)]))
    assert np.isnan(between_seeds(PHOTO[None]))
    assert between_seeds(np.zeros((2, 16, 16, 3), np.uint8)) == pytest.approx(0), "without any spread"
