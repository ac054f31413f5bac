import numpy as np
import pytest
from PIL import Image, ImageFilter

from api.server.testing import drawn_face
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.photos.choice import chosen, dominant, prominence
from core.photos.framing import Place

WIDE, HIGH = 600, 400


def group(*people):
    """Faces of (side, x, y, blur) in one photo, with their true landmarks."""
    photo = Image.new("RGB", (WIDE, HIGH), (110, 120, 128))
    for side, x, y, blur in people:
        photo.paste(drawn_face(side).filter(ImageFilter.GaussianBlur(blur)), (x, y))
    return [
        Face(photo, FRAME * side + (x, y), np.array([x, y, x + side, y + side], float), 0.9) for side, x, y, _ in people
    ]


def test_of_one_it_is_that_one_and_of_none_none():
    assert dominant(group((300, 150, 50, 0))) == 0
    assert dominant([]) is None


def test_of_two_alike_side_by_side_none_stands_out():
    assert dominant(group((280, 10, 60, 0), (280, 310, 60, 0))) is None
    assert dominant(group((190, 10, 60, 0), (190, 205, 60, 0), (190, 400, 60, 0))) is None


@pytest.mark.parametrize(
    "other",
    [(170, 420, 60, 0), (240, 360, 100, 3), (260, 470, 60, 0)],
    ids=["small", "blurred", "cut by the edge"],
)
def test_one_stands_out_before_another_that_is(other):
    assert dominant(group((300, 100, 60, 0), other)) == 0
    assert dominant(group(other, (300, 100, 60, 0))) == 1


def test_the_middle_counts_more():
    middle, corner = group((200, 200, 100, 0), (200, 400, 200, 0))
    assert prominence(middle) > prominence(corner)


def test_a_caller_chooses_by_number_or_by_a_box():
    faces = group((280, 10, 60, 0), (280, 310, 60, 0))
    assert chosen(faces, 1) == 1
    assert chosen(faces, Place(0.5, 0.0, 1.0, 1.0)) == 1
    assert chosen(faces, Place(0.0, 0.0, 0.5, 1.0)) == 0


@pytest.mark.parametrize("choice", [2, -1, Place(0.45, 0.9, 0.5, 1.0)])
def test_what_is_none_of_them_is_none(choice):
    assert chosen(group((280, 10, 60, 0), (280, 310, 60, 0)), choice) is None
