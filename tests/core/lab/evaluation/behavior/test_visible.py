"""What checks a word, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation.behavior.visible import checked_by, visible
from core.lab.evaluation.words import ASKS, POSES
from core.lab.poses import Poses

CLASSIFIER = PictureClassifier(ClassifierConfig(("photo",), ("hat", "beard"), (8, 8))).eval()


def test_no_training_where_it_can_be_done_without():
    assert {word: checked_by(word, None) for word in [*ASKS, *POSES] if checked_by(word, None)} == {
        **dict.fromkeys(("looking left", "looking right", "looking up", "smiling", "serious"), "poses"),
        **{word: "colors" for word in ASKS if word.endswith("background")},
        **dict.fromkeys(("hat", "glasses", "bangs", "lipstick", "mouth wide open"), "words"),
    }
    assert checked_by("beard", CLASSIFIER) == "classifier"
    assert checked_by("bald", CLASSIFIER) is None


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("looking left", [True, False, False, False]),
        ("looking right", [False, True, False, False]),
        ("looking up", [True, False, False, False]),
        ("smiling", [True, False, True, False]),
        ("serious", [False, True, False, False]),
    ],
)
def test_poses_are_right_by_their_angles_and_wrong_without_a_face(word, right):
    missing = float("nan")
    seen = Poses(
        np.array([0.9, 0.9, 0.9, 0.0]),
        np.array([-30.0, 30.0, 0.0, missing]),
        np.array([-20.0, 20.0, 0.0, missing]),
        np.array([0.9, 0.1, 0.9, missing]),
    )
    assert visible(word, np.zeros((4, 8, 8, 3), np.uint8), None, seen).tolist() == right


def test_backgrounds_by_colour_and_the_rest_by_the_classifier():
    pictures = np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in ((20, 40, 200), (5, 5, 5))])
    assert visible("on a blue background", pictures, None).tolist() == [True, False]
    assert visible("on a black background", pictures, None).tolist() == [False, True]
    assert visible("beard", pictures, CLASSIFIER).shape == (2,)
    assert visible("glasses", pictures, None).shape == (2,)
