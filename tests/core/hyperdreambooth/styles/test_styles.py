"""The training styles, on drawn faces: never on photos."""

import time
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from core.hyperdreambooth.styles.styles import PHOTO, STYLES, Pictures, Style

EVERY_STYLE = pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)


def drawn_face(size: int, skin: tuple[int, int, int], eyes: int) -> Pictures:
    """An oval with eyes and a mouth before a gradient; `eyes` is how far apart they are, in 64ths of the width."""
    across = np.linspace(60, 200, size).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(across, (size, 1))] * 2 + [np.full((size, size), 120, np.uint8)], axis=2))
    draw = ImageDraw.Draw(image)

    def oval(x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        left, top, right, bottom = ((v * size) // 64 for v in (x - width, y - height, x + width, y + height))
        draw.ellipse((left, top, right, bottom), fill=colour)

    oval(32, 30, 22, 28, (50, 30, 20))
    oval(32, 36, 17, 23, skin)
    oval(32 - eyes // 2, 30, 4, 2, (30, 20, 30))
    oval(32 + eyes // 2, 30, 4, 2, (30, 20, 30))
    oval(32, 47, 7, 2, (160, 40, 50))
    return np.asarray(image)


def batch(size: int = 64) -> Pictures:
    return np.stack([drawn_face(size, (225, 180, 150), 16), drawn_face(size, (120, 80, 60), 22)])


def contours(pictures: Pictures) -> np.ndarray:
    """Where brightness changes, smoothed over 5 pixels; one flat row a picture."""
    grey = pictures.astype(np.float64).mean(axis=3)
    down, right = np.gradient(grey, axis=(1, 2))
    size = np.hypot(down, right)
    smooth = sum(np.roll(size, (i, j), axis=(1, 2)) for i in range(-2, 3) for j in range(-2, 3))
    return np.asarray(smooth).reshape(len(pictures), -1)


def test_there_are_at_least_twelve_styles_under_their_own_names() -> None:
    assert len(STYLES) >= 12
    assert all(name == style.name for name, style in STYLES.items())
    assert PHOTO.name not in STYLES


@EVERY_STYLE
@pytest.mark.parametrize("size", [64, 128])
def test_a_style_keeps_shape_and_type_and_leaves_its_input_alone(style: Style, size: int) -> None:
    pictures = batch(size)
    before = pictures.copy()
    styled = style.apply(pictures)
    assert styled.shape == pictures.shape
    assert styled.dtype == np.uint8
    assert np.array_equal(pictures, before)


@EVERY_STYLE
def test_a_style_is_deterministic_and_treats_each_picture_alone(style: Style) -> None:
    pictures = np.concatenate([batch()] * 9)
    batched = style.apply(pictures)
    assert np.array_equal(batched, style.apply(pictures))
    alone = style.apply(pictures[1:2])[0]
    assert np.abs(batched[17].astype(int) - alone.astype(int)).mean() < 0.1


@EVERY_STYLE
def test_a_style_changes_the_picture_and_still_shows_who_it_is(style: Style) -> None:
    pictures = batch()
    styled = style.apply(pictures)
    assert np.abs(styled.astype(int) - pictures.astype(int)).mean() > 8
    agreement = np.corrcoef(np.concatenate([contours(styled), contours(pictures)]))[:2, 2:]
    assert agreement.diagonal().mean() > 0.2
    assert np.abs(styled[0].astype(int) - styled[1].astype(int)).mean() > 4


def test_styles_differ_from_each_other() -> None:
    pictures = batch()
    styled = {name: style.apply(pictures).astype(int) for name, style in STYLES.items()}
    nearest = min((np.abs(styled[a] - styled[b]).mean(), a, b) for a, b in combinations(styled, 2))
    assert nearest[0] > 8, nearest


@EVERY_STYLE
def test_a_style_is_the_same_at_twice_the_size(style: Style) -> None:
    small, large = style.apply(batch(64)), style.apply(batch(128))
    mean_small, mean_large = (pictures.reshape(2, -1, 3).mean(axis=1) for pictures in (small, large))
    assert np.abs(mean_small - mean_large).max() < 16


@EVERY_STYLE
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_are_no_trouble(style: Style, value: int) -> None:
    flat = np.full((1, 64, 64, 3), value, np.uint8)
    assert style.apply(flat).shape == flat.shape


@EVERY_STYLE
def test_odd_sizes_and_empty_batches_are_no_trouble(style: Style) -> None:
    assert style.apply(np.zeros((1, 67, 50, 3), np.uint8)).shape == (1, 67, 50, 3)
    assert style.apply(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 64, 64, 3)


@EVERY_STYLE
def test_what_is_not_a_batch_of_pictures_is_refused(style: Style) -> None:
    with pytest.raises(ValueError, match="uint8"):
        style.apply(batch()[0])
    with pytest.raises((ValueError, TypeError)):  # TypeError where annotations are checked while running
        style.apply(batch().astype(np.float32))


def test_styles_are_cheap_enough_for_a_training_loop() -> None:
    """Well under a millisecond a picture; the bound is wide, so that a busy machine does not fail it."""
    pictures = np.concatenate([batch()] * 8)
    for style in STYLES.values():
        style.apply(pictures)
    start = time.process_time()
    for style in STYLES.values():
        style.apply(pictures)
    assert (time.process_time() - start) / (len(STYLES) * len(pictures)) < 0.005


@pytest.mark.parametrize("style", [PHOTO, *STYLES.values()], ids=lambda style: style.name)
def test_phrasings_have_one_subject_and_differ(style: Style) -> None:
    assert len(style.phrasings) >= 4
    assert len(set(style.phrasings)) == len(style.phrasings)
    assert all(phrasing.count("{subject}") == 1 for phrasing in style.phrasings)


def test_canonical_phrasings() -> None:
    assert STYLES["pencil sketch"].phrasings[0] == "a pencil sketch of {subject}"
    assert STYLES["oil painting"].phrasings[0] == "an oil painting of {subject}"
    assert PHOTO.phrasings[0] == "{subject}"


def test_no_phrasing_means_two_styles() -> None:
    phrasings = [phrasing for style in (PHOTO, *STYLES.values()) for phrasing in style.phrasings]
    assert len(set(phrasings)) == len(phrasings)


def test_a_photo_is_copied() -> None:
    pictures = batch()
    styled = PHOTO.apply(pictures)
    assert np.array_equal(styled, pictures)
    assert not np.shares_memory(styled, pictures)
