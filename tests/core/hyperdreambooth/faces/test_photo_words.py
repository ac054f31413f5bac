"""Words for what is seen in a photo, by the layers that ship."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from core.errors import BundleError
from core.hyperdreambooth.faces.dlib_recogniser import Appearance, load_dlib_recogniser
from core.hyperdreambooth.faces.photo_words import PhotoWords, load_photo_words, pooled
from core.settings import EMBEDDED_BUNDLE

DEMO = EMBEDDED_BUNDLE / "demo-face.png"


@pytest.fixture(scope="module")
def read():
    return load_photo_words()


def seen(image: Image.Image) -> Appearance:
    return load_dlib_recogniser()(image.convert("RGB"))


def test_the_mirrored_photo_is_turned_the_other_way(read):
    with Image.open(DEMO) as face:
        plain, mirrored = seen(face), seen(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert read.scores(plain)["yaw"] == pytest.approx(-read.scores(mirrored)["yaw"], abs=4)
    assert read.scores(plain)["pitch"] == pytest.approx(read.scores(mirrored)["pitch"], abs=4)


@pytest.mark.parametrize(
    ("yaw", "words"),
    [(0.0, ()), (-0.3, ()), (-0.6, ("looking slightly left",)), (0.6, ("looking slightly right",)), (1.4, ())],
)
def test_a_face_that_is_turned_a_little_is_said_to_be(yaw, words):
    layers = PhotoWords(("smiling", "yaw", "pitch"), np.zeros((3, 2048)), np.array([-1.0, yaw, 0]), np.zeros(3))
    assert layers(Appearance(np.zeros(128), np.zeros((8, 8, 128)))) == words


def test_a_word_is_said_above_its_threshold():
    layers = PhotoWords(("smiling", "yaw", "pitch"), np.zeros((3, 2048)), np.array([1.0, 0, 0]), np.array([0.5, 0, 0]))
    assert layers(Appearance(np.zeros(128), np.zeros((8, 8, 128)))) == ("smiling",)


def test_pooling_keeps_places_apart():
    features = np.zeros((8, 8, 128))
    features[2:4, 6:8, 5] = 1
    assert np.flatnonzero(pooled(features)).tolist() == [(1 * 4 + 3) * 128 + 5]


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match="cannot be read"):
        load_photo_words.__wrapped__(tmp_path)
