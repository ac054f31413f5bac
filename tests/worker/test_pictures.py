from __future__ import annotations

import io
import re
from ast import literal_eval

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from core.records import GenerateRequest, PictureNote, Share
from worker.pictures import decode, encode, notes_of, one_line, stack


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_come_back_exactly() -> None:
    pixels = noise(5, 7)
    assert np.array_equal(decode(encode(pixels, {PictureNote.PROMPT: "a [V] face"})), pixels)


def test_equal_arguments_give_equal_bytes() -> None:
    first, second = (encode(noise(4, 4), {PictureNote.PROMPT: "ü", PictureNote.SEED: "1"}) for _ in range(2))
    assert first == second
    assert first != encode(noise(4, 4), {PictureNote.PROMPT: "ü", PictureNote.SEED: "2"})


def test_a_picture_says_what_its_caller_asked_for() -> None:
    shares = (Share(subject_id="sub_1", weight=0.5), Share(subject_id="sub_2", weight=0.5))
    request = GenerateRequest(subject_id="sub_1", prompt="a [V] face", seed=3, blend=shares)
    assert notes_of(request, 4) == {}
    every = request.model_copy(update={"metadata": tuple(PictureNote)})
    assert notes_of(every, 4) == {"prompt": "a [V] face", "seed": "4", "subject": "sub_1, sub_2"}


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_line_that_can_be_read_back(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert all(each.isprintable() or each.isspace() for each in line)
    line.encode()
    assert re.sub(r"\\(?:\\|[nrt]|x..|u.{4}|U.{8})", lambda each: literal_eval(f"'{each[0]}'"), line) == text


def test_only_png_is_opened() -> None:
    file = io.BytesIO()
    Picture.new("RGB", (4, 4)).save(file, "JPEG")
    with pytest.raises(UnidentifiedImageError):
        decode(file.getvalue())


def test_pictures_of_one_size_are_stacked_as_they_are() -> None:
    pixels = noise(6, 6)
    assert np.array_equal(stack([pixels, pixels]), np.stack([pixels, pixels]))
    assert stack([noise(9, 9), pixels]).shape == (2, 6, 6, 3)
