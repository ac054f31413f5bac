import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from core.errors import (
    FaceTooBlurred,
    FaceTooBright,
    FaceTooDark,
    FaceTooSmall,
    FaceTurnedAway,
    NoFace,
    PhotoRefused,
    SeveralFaces,
)
from core.hyperdreambooth.faces.alignment import FRAME, Face, similarity
from core.hyperdreambooth.faces.detection import find_faces
from core.photos import quality
from core.photos.check import find_face
from core.photos.reasons import MIN_SHARPNESS, reasons_against

SKIN, HAIR = np.array([216.0, 164.0, 134.0]), np.array([52.0, 36.0, 28.0])
PHOTOS = Path(__file__).parents[5] / "shared" / "faces" / "eval.parquet"


def drawing(size=256):
    """A synthetic face in FFHQ's framing: soft ellipses of (x, y, width, height, softness, colour,
    opacity).
    """
    parts = [
        (0.5, 1.12, 0.42, 0.25, 0.03, [70, 80, 110], 1.0),
        (0.5, 0.44, 0.29, 0.33, 0.03, HAIR, 1.0),
        (0.5, 0.85, 0.11, 0.16, 0.05, SKIN * 0.7, 1.0),
        (0.5, 0.56, 0.225, 0.30, 0.03, SKIN, 1.0),
    ]
    for x, y in FRAME[:2]:
        parts += [
            (x, y - 0.01, 0.075, 0.05, 0.25, SKIN * 0.55, 0.35),
            (x, y - 0.06, 0.065, 0.012, 0.25, HAIR, 0.6),
            (x, y, 0.042, 0.018, 0.12, [235, 232, 228], 1.0),
            (x, y, 0.019, 0.019, 0.1, [50, 35, 30], 1.0),
            (x, y - 0.017, 0.046, 0.007, 0.3, HAIR, 0.8),
        ]
    nose, mouth = FRAME[2, 1], FRAME[3, 1]
    parts += [
        (0.5, nose - 0.06, 0.018, 0.09, 0.3, SKIN * 1.2, 0.5),
        (0.5, nose + 0.015, 0.045, 0.02, 0.3, SKIN * 0.6, 0.35),
        (0.478, nose + 0.018, 0.012, 0.007, 0.25, [60, 30, 25], 0.8),
        (0.522, nose + 0.018, 0.012, 0.007, 0.25, [60, 30, 25], 0.8),
        (0.5, mouth, 0.115, 0.026, 0.15, [170, 75, 75], 0.85),
        (0.5, mouth, 0.11, 0.006, 0.3, [70, 25, 25], 0.9),
    ]
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 256
    pixels = np.full((256, 256, 3), 155.0)
    for cx, cy, rx, ry, soft, colour, opacity in parts:
        inside = opacity / (1 + np.exp(np.minimum((np.hypot((x - cx) / rx, (y - cy) / ry) - 1) / soft, 50)))
        pixels += inside[..., None] * (colour - pixels)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def scene(*faces, size=(640, 480)):
    """Drawings of (side, x, y) in a larger picture."""
    picture = Image.new("RGB", size, (155, 155, 155))
    for side, x, y in faces:
        picture.paste(drawing(side), (x, y))
    return picture


def difference(one, other):
    return np.abs(np.asarray(one, float) - np.asarray(other, float)).mean()


@pytest.mark.parametrize("size", [64, 128, 512])
def test_a_face_that_fills_the_picture_is_found_where_it_is(size):
    found = find_face(drawing(size))
    assert np.abs(found.landmarks / size - FRAME).mean() < 0.03
    assert found.eye_distance == pytest.approx(0.246 * size, rel=0.2)
    assert abs(quality.turn(found)) < 0.05
    assert found.score > 0.5


@pytest.mark.parametrize("angle", [0, 25, -40])
def test_wherever_a_face_is_and_however_it_is_held_its_crop_is_the_same(angle):
    photo = scene((200, 250, 100), size=(640, 480)).rotate(angle, fillcolor=(155, 155, 155), resample=3)
    assert difference(find_face(photo).aligned(96), find_face(drawing()).aligned(96)) < 5


def test_a_face_far_away_in_a_large_picture_is_found():
    found = find_face(scene((110, 1200, 300), size=(2400, 1600)))
    assert np.abs(found.landmarks - (FRAME * 110 + [1200, 300])).mean() < 4


@pytest.mark.parametrize("size", [48, 200, 512])
def test_aligned_pictures_have_the_size_asked_for_and_no_black_where_the_photo_ends(size):
    tight = drawing(400).crop((90, 90, 310, 340))
    crop = find_face(tight).aligned(size)
    assert crop.size == (size, size)
    assert crop.mode == "RGB"
    assert np.asarray(crop).min(axis=(0, 1)).max() > 5


def test_shrinking_a_lot_does_not_alias():
    large = drawing(1600)
    frame = FRAME * 1600
    exact = Face(large, frame, np.array([400.0, 400.0, 1200.0, 1400.0]), 1.0).aligned(64)
    assert difference(exact, large.resize((64, 64), Image.Resampling.LANCZOS)) < 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_will_do(mode):
    assert find_face(drawing(128).convert(mode)).aligned(64).mode == "RGB"


@pytest.mark.parametrize(
    "photo",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.linear_gradient("L"),
        Image.effect_noise((256, 256), 80),
        Image.new("RGB", (2000, 32)),
    ],
    ids=["white", "gradient", "noise", "strip"],
)
def test_no_face(photo):
    with pytest.raises(NoFace, match="send a photo"):
        find_face(photo)


def test_several_faces_are_counted():
    with pytest.raises(SeveralFaces, match="crop the photo") as refused:
        find_face(scene((200, 10, 100), (180, 220, 100), (200, 420, 100)))
    assert refused.value.count == 3


def test_a_person_far_behind_is_no_second_face():
    photo = scene((300, 20, 100), (110, 480, 60))
    assert find_face(photo).landmarks[2, 0] < 320
    assert len(find_faces(photo)) == 1


@pytest.mark.parametrize("size", [1, 20, 36])
def test_too_small(size):
    with pytest.raises(FaceTooSmall, match="send"):
        find_face(drawing(size))


def test_too_blurred():
    with pytest.raises(FaceTooBlurred, match="sharper"):
        find_face(drawing().filter(ImageFilter.GaussianBlur(8)))


def test_turned_away():
    frame = FRAME * 256
    frame[2] += [0.5 * 0.246 * 256, 0]
    profile = Face(drawing(), frame, np.array([60.0, 60.0, 200.0, 220.0]), 0.9)
    assert quality.turn(profile) == pytest.approx(0.5)
    (reason,) = reasons_against(profile)
    assert reason.error is FaceTurnedAway
    assert "faces the camera" in reason.advice


def in_light(factor):
    """The drawing with every colour made that much brighter or darker."""
    return Image.fromarray((np.asarray(drawing(), float) * factor).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("factor", "error", "advice"), [(0.15, FaceTooDark, "daylight"), (1.8, FaceTooBright, "without flash")]
)
def test_too_dark_or_too_bright(factor, error, advice):
    photo = Face(in_light(factor), FRAME * 256, np.array([60.0, 60.0, 200.0, 220.0]), 0.9)
    reason = reasons_against(photo)[0]
    assert reason.error is error
    assert advice in reason.advice


@pytest.mark.parametrize("factor", [0.4, 1.2])
def test_other_light_will_do(factor):
    assert find_face(in_light(factor)).aligned(64).size == (64, 64)


def test_sharpness_falls_with_resolution_and_not_with_size():
    found = find_face(drawing(512))
    again = find_face(drawing(128))
    blurred = find_faces(drawing().filter(ImageFilter.GaussianBlur(4)))[0]
    assert quality.sharpness(found) == pytest.approx(quality.sharpness(again), rel=0.15)
    assert quality.sharpness(blurred) < MIN_SHARPNESS < quality.sharpness(again)


def test_a_similarity_is_found_exactly():
    angle, scale, shift = 0.7, 3.0, np.array([5.0, -2.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = similarity(FRAME, scale * FRAME @ turn.T + shift)
    np.testing.assert_allclose(transform[:2, :2], scale * turn, atol=1e-9)
    np.testing.assert_allclose(transform[:2, 2], shift, atol=1e-9)


def test_a_similarity_never_mirrors():
    assert np.linalg.det(similarity(FRAME, FRAME * [-1, 1])) > 0


@pytest.mark.skipif(not PHOTOS.exists(), reason="the evaluation photos are not here")
@pytest.mark.parametrize("size", [128, 64])
def test_photos_are_taken_and_their_blurred_copies_are_not(size):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(PHOTOS, columns=["image"]).take(list(range(0, 2000, 250))).to_pylist()
    taken = blurred_taken = 0
    for row in rows:
        photo = Image.open(io.BytesIO(row["image"])).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        taken += is_taken(photo)
        blurred_taken += is_taken(photo.filter(ImageFilter.GaussianBlur(size / 32)))
    assert taken >= 7
    assert blurred_taken == 0


def is_taken(photo):
    try:
        find_face(photo)
    except PhotoRefused:
        return False
    return True
