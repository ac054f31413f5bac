"""What the classifier learns from, and where its thresholds lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.testing import random_bundle
from core.lab.training.classifier import ASIDE, classifier_losses, parted, settle_thresholds
from core.lab.training.data import Faces

WORDS = ("hat", "beard")


def grey(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((64, 64, 3), level, np.uint8) for level in levels])


class Bright(PictureClassifier):
    """Its score of each word is how bright the picture is, on top of its bias."""

    def forward(self, pixels):
        level = pixels.mean(dim=(1, 2, 3))
        return torch.zeros(len(pixels), 1), level[:, None] + self.head.bias[1:]


def test_people_kept_aside_are_not_learnt_from():
    faces = Faces(grey([0] * 20), tuple(str(n // 2) for n in range(20)), (("hat",),) * 20, ("a",) * 20)
    learn, aside = parted(faces)
    assert set(learn.identities) | set(aside.identities) == set(faces.identities)
    assert not set(learn.identities) & set(aside.identities)
    assert len(set(aside.identities)) == 10 // ASIDE


def test_a_word_that_a_file_never_has_is_not_learnt_from_it():
    classifier = PictureClassifier(ClassifierConfig(("photo",), WORDS, (8, 8)))
    bundle = random_bundle()
    faces = Faces(grey([0, 250] * 4), tuple("abcdefgh"), (("hat",), ("man",)) * 4, ("one", "two") * 4)
    classifier_losses(classifier, bundle, faces, 8, torch.Generator().manual_seed(0))["attribute"].backward()
    by_word = classifier.head.weight.grad[1:].abs().sum(1)
    assert by_word[0] > 0  # the first file has hats
    assert by_word[1] == 0  # neither file has beards


@pytest.mark.parametrize("overlap", [0, 1])
def test_thresholds_part_the_photos_best(overlap):
    classifier = Bright(ClassifierConfig(("photo",), WORDS, (8, 8))).eval().requires_grad_(False)
    levels = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    has = [level > 55 for level in levels]
    has[0] = bool(overlap)  # one of those with a hat is the darkest of all
    faces = Faces(grey(levels), tuple("abcdefghij"), tuple(("hat",) if hat else ("beard",) for hat in has))
    settle_thresholds(classifier, faces)
    found = classifier.shows(torch.from_numpy(faces.pictures), "hat")
    assert found == [level > 55 for level in levels]
    assert classifier.shows(torch.from_numpy(faces.pictures), "beard").count(True) >= 4
