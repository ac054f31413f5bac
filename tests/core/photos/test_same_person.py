import numpy as np
import pytest

from core.hyperdreambooth.faces.dlib_recogniser import Appearance
from core.photos.same_person import Comparison, compare


def seen(*at):
    """An appearance whose embedding is a point on a line, in the first of 128 numbers."""
    if at == (None,):
        return None
    return Appearance(np.array([*at, *[0.0] * (128 - len(at))]), np.zeros((8, 8, 128)))


def compared(*places, covered=(), known=0):
    appearances = [seen(*place) if isinstance(place, tuple) else seen(place) for place in places]
    return compare(appearances, [number in covered for number in range(len(places))], known)


@pytest.mark.parametrize("places", [(), (0.0,), (None, 0.0), (0.0, 0.3), (0.0, 0.3, 0.5, 0.1)])
def test_photos_of_one_person_say_nothing(places):
    assert compared(*places) == Comparison()


def test_of_two_photos_the_first_one_counts():
    assert compared(0.0, 0.9) == Comparison(others=(1,))


def test_the_one_that_does_not_fit_is_named_wherever_it_stands():
    assert compared(0.9, 0.0, 0.1, 0.2) == Comparison(others=(0,))
    assert compared(0.0, 0.1, None, 0.9, 0.2) == Comparison(others=(3,))


def test_several_that_do_not_fit_are_all_named():
    assert compared(0.0, 0.1, 0.2, (0.1, 0.9), (0.1, -0.9)) == Comparison(others=(3, 4))


def test_a_photo_fits_that_fits_with_one_of_them():
    assert compared(0.0, 0.5, 1.0) == Comparison()


def test_between_both_distances_it_is_unsure():
    assert compared(0.0, 0.6) == Comparison(unsure=(1,))
    assert compared(0.0, 0.1, 0.71) == Comparison(unsure=(2,))


def test_who_is_meant_is_the_person_of_the_known_photos():
    assert compared(0.0, 0.9, 0.95, 1.0, known=1) == Comparison(others=(1, 2, 3))
    assert compared(0.0, 0.1, 0.9, known=2) == Comparison(others=(2,))
    assert compared(0.0, 0.9, 0.3, known=2) == Comparison()
    assert compared(0.0, 0.62, known=1) == Comparison(unsure=(1,))


def test_known_photos_are_never_in_doubt_and_those_without_a_face_do_not_count():
    assert compared(0.0, 0.62, known=2) == Comparison()
    assert compared(None, 0.9, 0.0, known=1) == Comparison(others=(2,))
    assert compared(None, 0.0, 0.9, known=2) == Comparison(others=(2,))


def test_covered_faces_are_given_more_distance():
    assert compared(0.0, 0.7, covered=(1,)) == Comparison(unsure=(1,))
    assert compared(0.0, 0.8, covered=(0,)) == Comparison(others=(1,))
