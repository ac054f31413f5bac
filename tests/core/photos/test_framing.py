import numpy as np
import pytest

from api.server.testing import drawn_face
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.photos.framing import FEATURES, WHOLE, Place, has_landmark_outside, place_of, share_outside


def cut(left, top, right, bottom, side=200):
    """The drawn face with its true landmarks, cropped to a box of fractions."""
    box = [round(side * edge) for edge in (left, top, right, bottom)]
    landmarks = FRAME * side - box[:2]
    return Face(drawn_face(side).crop(tuple(box)), landmarks, np.array([0.0, 0.0, side, side]), 0.9)


def test_a_face_in_the_middle_lies_in_the_photo():
    face = cut(0, 0, 1, 1)
    assert not has_landmark_outside(face)
    assert share_outside(face, FEATURES) == share_outside(face, WHOLE) == 0
    assert place_of(face) == Place(0.22, 0.27, 0.78, 0.88)


@pytest.mark.parametrize("box", [(0, 0, 0.6, 1), (0.4, 0, 1, 1), (0, 0, 1, 0.7), (0, 0.5, 1, 1)])
def test_a_face_that_is_cut_has_a_landmark_outside(box):
    face = cut(*box)
    assert has_landmark_outside(face)
    assert share_outside(face, FEATURES) > 0.1


def test_areas_are_measured():
    assert share_outside(cut(0, 0, 0.5, 1), WHOLE) == pytest.approx(0.5, abs=0.03)
    assert share_outside(cut(0, 0, 1, 0.72), FEATURES) == pytest.approx(0.05 / 0.39, abs=0.03)


def test_the_place_is_within_the_photo_and_turns_with_the_face():
    place = place_of(cut(0.4, 0, 1, 1))
    assert place.left == 0
    assert place.right == pytest.approx((0.78 - 0.4) / 0.6, abs=0.001)
    upright = cut(0, 0, 1, 1)
    turned = Face(upright.image, (upright.landmarks - 100) @ np.array([[0, -1], [1, 0]]) + 100, upright.box, 0.9)
    assert place_of(turned).right - place_of(turned).left == pytest.approx(0.61, abs=0.001)


def test_a_point_is_in_a_place_or_not():
    place = Place(0.1, 0.2, 0.3, 0.4)
    assert place.contains(*place.centre)
    assert not place.contains(0.35, 0.3)
