"""What is to be seen in a photo that is not who it is of, by what dlib's recogniser sees in each place of a face.

Finetuning on a photo says these words in its prompt, so that pose, mouth and light are not learnt as the person. Its
card says from what the layers learnt and how often they are right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from core.errors import BundleError
from core.hyperdreambooth.faces.dlib_recogniser import Appearance
from core.hyperdreambooth.faces.tensor_file import read_tensor_file

FOLDER = Path(__file__).parents[2] / "bundles" / "face-words"
"""The layers that ship."""

DEGREES = 15.0
"""What 1 of the layers of yaw and pitch is, and from which yaw on a face is turned to a side."""

SLIGHTLY = 7.0
"""Degrees of yaw from which on it is so slightly."""

_SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True, eq=False)
class PhotoWords:
    """A linear layer for each of ``names``; a word is said where its score is above its threshold.

    The last two names are "yaw" (negative: turned to the picture's left) and "pitch" (positive: head down).
    """

    names: tuple[str, ...]
    weight: Float[np.ndarray, "names 2048"]
    bias: Float[np.ndarray, " names"]
    threshold: Float[np.ndarray, " names"]

    def scores(self, appearance: Appearance) -> dict[str, float]:
        """How far each word is beyond its threshold; yaw and pitch in degrees."""
        found = self.weight @ pooled(appearance.features) + self.bias - self.threshold
        scores = dict(zip(self.names, (float(score) for score in found), strict=True))
        return {name: score * (DEGREES if name in ("yaw", "pitch") else 1.0) for name, score in scores.items()}

    def __call__(self, appearance: Appearance) -> tuple[str, ...]:
        """The words that are seen, such as ("smiling", "facing the camera")."""
        scores = self.scores(appearance)
        words = [name for name, score in scores.items() if score > 0 and name not in ("yaw", "pitch")]
        if SLIGHTLY <= abs(scores["yaw"]) < DEGREES and not any(word.startswith("looking") for word in words):
            words.append(f"looking slightly {'left' if scores['yaw'] < 0 else 'right'}")
        return tuple(words)


def pooled(features: Float[np.ndarray, "8 8 128"]) -> Float[np.ndarray, " 2048"]:
    """The means of the features over squares of 2 x 2 places, place by place."""
    means: np.ndarray = features.reshape(4, 2, 4, 2, 128).mean((1, 3))
    return means.reshape(-1)


def mirrored(words: Iterable[str]) -> tuple[str, ...]:
    """The words of the mirrored picture: left and right change places."""
    return tuple(" ".join(_SIDES.get(part, part) for part in word.split(" ")) for word in words)


@cache
def load_photo_words(folder: Path = FOLDER) -> PhotoWords:
    """The layers in a folder. Raises BundleError when they cannot be read."""
    file = read_tensor_file(folder / "model.safetensors")
    try:
        names = tuple(str(name) for name in json.loads(file.metadata["words"]))
        tensors = file.tensors
        return PhotoWords(names, tensors["weight"], tensors["bias"], tensors["threshold"])
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(f"the words in {folder} cannot be read: {error!r}") from error
