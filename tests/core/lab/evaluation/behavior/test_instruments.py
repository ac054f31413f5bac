"""How well words are found in labelled photos."""

from __future__ import annotations

import numpy as np

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation.behavior import instruments
from core.lab.training.data import Faces


def test_shares_of_photos_with_and_without_a_word_that_is_common_enough(monkeypatch):
    colours = [250] * 6 + [0] * 6
    pictures = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])
    attributes = [("beard", "bald")] * 4 + [("beard",)] * 3 + [("man",)] * 5
    faces = Faces(pictures, tuple("abcdefghijkl"), tuple(attributes))
    monkeypatch.setattr(instruments, "visible", lambda _word, found, _classifier: found.mean(axis=(1, 2, 3)) > 100)
    classifier = PictureClassifier(ClassifierConfig(("photo",), ("beard", "bald"), (8, 8))).eval()
    assert instruments.recalls(faces, classifier) == {"beard": (7, 6 / 7, 0.0)}
