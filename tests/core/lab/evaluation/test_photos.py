import numpy as np
import pytest
from PIL import Image

from api.server.testing import drawn_face
from core.hyperdreambooth.faces.dlib_recogniser import Appearance
from core.lab.evaluation import photos
from core.lab.training.data import Faces
from core.photos.reasons import CUT_OFF
from core.photos.records import PhotoCheck, PhotoWarning


@pytest.fixture
def faces():
    pictures = np.stack([np.asarray(drawn_face(128))] * 6)
    return Faces(pictures, ("ada", "ada", "bob", "bob", "cleo", "cleo"), ((),) * 6)


def test_the_area_is_how_often_one_of_the_first_is_smaller():
    assert photos.area(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert photos.area(np.array([1.0, 4.0]), np.array([2.0, 3.0])) == 0.5


def test_of_each_person_as_many_photos_are_compared(faces):
    head, _, row = photos.recognition(faces, 2)
    assert "AUC" in head
    assert row.startswith("| 6 | 3 / 12 | ")


@pytest.mark.parametrize("name", [name for name, _ in photos.CASES])
def test_every_case_is_a_photo(name):
    make = dict(photos.CASES)[name]
    made = make([drawn_face(photos.SIDE)] * 2, 1, np.random.default_rng(0))
    assert isinstance(made, Image.Image)
    assert min(made.size) >= photos.SIDE // 2


def test_the_table_counts_what_was_accepted_warned_about_and_refused(faces, monkeypatch):
    def check(image, choice=None):
        wide = image.width > image.height
        return PhotoCheck(
            (CUT_OFF,) if image.width < image.height else (),
            (PhotoWarning("other-faces", "There are others."),) if wide else (),
            appearance=Appearance(np.zeros(128), np.zeros((8, 8, 128))),
        )

    monkeypatch.setattr(photos, "check_photo", check)
    lines = list(photos.checks(faces, np.random.default_rng(0)))
    assert "| as it is | 3 | 3 | – | – |" in lines
    assert "| right side cut off at 0.60 | 3 | 0 | – | face-cut-off 3 |" in lines
    assert "| two people side by side | 3 | 3 | other-faces 3 | – |" in lines
    assert lines[-1] == "| photos of two people: the second | 3 | 3 | – | – |"
