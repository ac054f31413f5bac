"""Whether pictures show the person, or repeat the photo that was given (MultiID-Bench's measures, of WithAnyone).

With ``g`` a picture, ``r`` the photo that was given and ``t`` another photo of the person: Sim(Ref) = sim(g, r),
Sim(GT) = sim(g, t), and copy-paste = (angle(g, t) - angle(g, r)) / angle(r, t): 1 for the photo itself, 0 for a
picture that is as near to other photos as to it. Models are ranked by Sim(GT).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.hyperdreambooth.faces.dlib_recogniser import SAME, load_dlib_recogniser
from core.hyperdreambooth.faces.onnx_recogniser import OnnxRecogniser
from core.lab.evaluation.drawing import Pictures
from core.lab.evaluation.subjects import Subject

Embeddings = Float[np.ndarray, "_ embedding"]

STRANGERS = 0.86
"""Mean distance of two people by dlib's network: the length at which its similarity is 0."""

_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Recogniser:
    """Who a picture shows: unit embeddings, whose cosine is above ``accept`` for pictures of one person.

    ``seen`` keeps the embeddings of photos that were compared before, by identity.
    """

    name: str
    embed: Callable[[Pictures], Embeddings]
    accept: float
    compare: Callable[[Embeddings, Embeddings], Float[np.ndarray, "n m"]] = lambda one, other: one @ other.T
    seen: dict[str, tuple[Embeddings, Embeddings]] = field(default_factory=dict)

    def of_subject(self, subject: Subject) -> tuple[Embeddings, Embeddings]:
        """What it sees in the photo that is used, and in the person's others."""
        if subject.identity not in self.seen:
            self.seen[subject.identity] = self.embed(subject.photo[None]), self.embed(subject.others)
        return self.seen[subject.identity]


def onnx_recogniser(name: str, file: Path, accept: float) -> Recogniser:
    """One from a file. Raises SettingsError where there is none, or one of another kind."""
    return Recogniser(name, OnnxRecogniser(file), accept)


def dlib_recogniser() -> Recogniser:
    """dlib's network, which ships. Its distances d become similarities 1 - (d / STRANGERS)², as cosines would be."""
    network = load_dlib_recogniser()
    return Recogniser(
        "dlib",
        lambda pictures: np.stack([network(Image.fromarray(picture)).embedding for picture in pictures]),
        1 - (SAME / STRANGERS) ** 2,
        _by_distance,
    )


def _by_distance(one: Embeddings, other: Embeddings) -> Float[np.ndarray, "n m"]:
    apart: np.ndarray = ((one[:, None] - other[None]) ** 2).sum(-1)
    return 1 - apart / STRANGERS**2


def likeness(recogniser: Recogniser, subject: Subject, pictures: Pictures, *, are_others: bool) -> dict[str, float]:
    """Means over the pictures, by the recogniser's name; a picture's figure is its mean over the person's other photos.

    ``accepted`` is by other photos, ``accepted_photo`` by the photo that was given. ``are_others``: the pictures are
    the first of the other photos, and none is compared with itself. There are no numbers where nothing is left to
    compare with.
    """
    photo, others = recogniser.of_subject(subject)
    made = recogniser.embed(pictures)
    reference, truth = recogniser.compare(made, photo)[:, 0], recogniser.compare(made, others)
    compared = np.ones(truth.shape, dtype=bool)
    if are_others:
        np.fill_diagonal(compared, val=False)
    if not compared.any(1).all():
        return {}
    apart = np.maximum(_angle(recogniser.compare(photo, others)), _TINY)
    copied = (_angle(truth) - _angle(reference)[:, None]) / apart

    def mean(values: np.ndarray) -> float:
        return float(np.mean([row[which].mean() for row, which in zip(values, compared, strict=True)]))

    numbers = {
        "sim_gt": mean(truth),
        "sim_ref": float(reference.mean()),
        "copy_paste": mean(copied),
        "accepted": mean(truth > recogniser.accept),
        "accepted_photo": float((reference > recogniser.accept).mean()),
    }
    return {f"{key}/{recogniser.name}": value for key, value in numbers.items()}


def to_others(recogniser: Recogniser, subject: Subject, pictures: Pictures) -> Float[np.ndarray, " n"]:
    """Sim(GT) of each picture: its mean similarity with the person's other photos."""
    similarity: np.ndarray = recogniser.compare(recogniser.embed(pictures), recogniser.of_subject(subject)[1]).mean(1)
    return similarity


def _angle(similarity: np.ndarray) -> np.ndarray:
    angle: np.ndarray = np.arccos(np.clip(similarity, -1, 1))
    return angle
