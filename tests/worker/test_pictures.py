from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from worker.pictures import decode, encode, stack


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_come_back_exactly() -> None:
    pixels = noise(5, 7)
    assert np.array_equal(decode(encode(pixels, prompt="a [V] face", seed=1, subject_id="sub_1")), pixels)


def test_equal_arguments_give_equal_bytes() -> None:
    first, second = (encode(noise(4, 4), prompt="ü", seed=1, subject_id="sub_1") for _ in range(2))
    assert first == second
    assert first != encode(noise(4, 4), prompt="ü", seed=2, subject_id="sub_1")


def test_only_png_is_opened() -> None:
    file = io.BytesIO()
    Picture.new("RGB", (4, 4)).save(file, "JPEG")
    with pytest.raises(UnidentifiedImageError):
        decode(file.getvalue())


def test_pictures_of_one_size_are_stacked_as_they_are() -> None:
    pixels = noise(6, 6)
    assert np.array_equal(stack([pixels, pixels]), np.stack([pixels, pixels]))
    assert stack([noise(9, 9), pixels]).shape == (2, 6, 6, 3)
