"""Whether a word is visible in a picture: by poses, by the layers of photo_words, by colours, by a classifier."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool

from core.hyperdreambooth.appearance import words_of
from core.hyperdreambooth.faces.photo_words import load_photo_words
from core.lab.classifier import PictureClassifier
from core.lab.evaluation.colours import background
from core.lab.evaluation.drawing import Pictures
from core.lab.poses import Poses, find_poses

TURNED, RAISED = 12.0, 6.0
"""Degrees of yaw and pitch. Of photos with the words, 97 % are turned and 98 % raised so far, of others 4 and 2 %."""

SMILE = 0.5

_POSED = ("looking left", "looking right", "looking up", "smiling", "serious")


def checked_by(word: str, classifier: PictureClassifier | None) -> str | None:
    """What checks the word: "poses", "words", "colors", "classifier"; None where nothing can."""
    if word in _POSED:
        return "poses"
    if word.endswith(" background"):
        return "colors"
    if word in load_photo_words().names:
        return "words"
    return "classifier" if classifier is not None and word in classifier.config.attributes else None


def visible(
    word: str, pictures: Pictures, classifier: PictureClassifier | None, poses: Poses | None = None
) -> Bool[np.ndarray, " n"]:
    """Which pictures show it; ``poses`` are the pictures' where they are known. Without a face no pose is right."""
    match checked_by(word, classifier):
        case "poses":
            return _posed(word, find_poses(pictures) if poses is None else poses)
        case "words":
            return np.array([word in words for words in words_of(torch.from_numpy(pictures.copy()))], dtype=bool)
        case "colors":
            return np.array([f" {background(picture)} background" in word for picture in pictures], dtype=bool)
        case _:
            assert classifier is not None
            return np.array(classifier.shows(torch.from_numpy(pictures.copy()), word), dtype=bool)


def _posed(word: str, seen: Poses) -> Bool[np.ndarray, " n"]:
    posed: Bool[np.ndarray, " n"] = {
        "looking left": seen.yaw <= -TURNED,
        "looking right": seen.yaw >= TURNED,
        "looking up": seen.pitch <= -RAISED,
        "smiling": seen.smile >= SMILE,
        "serious": seen.smile < SMILE,
    }[word]
    return posed
