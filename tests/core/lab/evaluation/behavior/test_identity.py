"""Whether a picture shows the person or repeats the photo: cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from core.lab.evaluation.behavior.identity import Recogniser, dlib_recogniser, likeness, to_others
from core.lab.evaluation.subjects import Subject

RED, GREEN, BLUE = (np.full((16, 16, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
BETWEEN = np.full((16, 16, 3), (128, 128, 0), np.uint8)


@pytest.fixture
def recogniser(mean_colour) -> Recogniser:
    return Recogniser("A", mean_colour, 0.5)


@pytest.mark.parametrize(
    ("picture", "copied", "reference", "truth", "accepted"),
    [
        (RED, 1.0, 1.0, 0.0, 0.0),
        (GREEN, -1.0, 0.0, 1.0, 1.0),
        (BETWEEN, 0.0, 0.5**0.5, 0.5**0.5, 1.0),
        (BLUE, 0.0, 0.0, 0.0, 0.0),
    ],
    ids=["the photo itself", "the other photo", "as near to both", "somewhere else"],
)
def test_copy_paste_is_one_for_the_photo_and_zero_without_preference(
    recogniser, picture, copied, reference, truth, accepted
):
    found = likeness(recogniser, Subject("ada", RED, GREEN[None]), picture[None], are_others=False)
    expected = {"copy_paste/A": copied, "sim_ref/A": reference, "sim_gt/A": truth, "accepted/A": accepted}
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-3)


def test_another_photo_is_not_compared_with_itself(recogniser):
    subject = Subject("ada", RED, np.stack([GREEN, BLUE]))
    others = likeness(recogniser, subject, subject.others, are_others=True)
    assert others["sim_gt/A"] == pytest.approx(0, abs=1e-3)
    assert others["copy_paste/A"] == pytest.approx(0, abs=1e-3)
    assert likeness(recogniser, Subject("bob", RED, GREEN[None]), GREEN[None], are_others=True) == {}
    assert to_others(recogniser, subject, subject.others) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_the_photos_of_a_person_are_seen_once(mean_colour):
    seen = []

    def embed(pictures):
        seen.append(len(pictures))
        return mean_colour(pictures)

    recogniser, subject = Recogniser("A", embed, 0.5), Subject("ada", RED, np.stack([GREEN, BLUE]))
    for _ in range(2):
        likeness(recogniser, subject, RED[None], are_others=False)
    assert seen == [1, 2, 1, 1]


def test_dlibs_distances_are_similarities():
    recogniser = dlib_recogniser()
    one, other = recogniser.embed(np.stack([RED, GREEN]))
    similarity = recogniser.compare(one[None], np.stack([one, other]))[0]
    assert similarity[0] == pytest.approx(1)
    assert similarity[1] == pytest.approx(1 - np.sum((one - other) ** 2) / 0.86**2, abs=1e-4)
    assert recogniser.accept == pytest.approx(0.56, abs=0.005), "distance 0.57"
