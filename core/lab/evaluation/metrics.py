"""The columns: what is measured of one person's pictures, by whatever judges there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from core.hyperdreambooth.styles.styles import STYLES
from core.lab.classifier import PictureClassifier
from core.lab.evaluation.similarity import ImageSimilarity
from core.lab.evaluation.subjects import Subject

Pictures = UInt8[np.ndarray, "_ h w 3"]
Embeddings = Float[np.ndarray, "_ embedding"]
Recognise = Callable[[UInt8[np.ndarray, "n side side 3"]], Embeddings]
"""Aligned pictures to unit embeddings: a ``Recogniser``."""

ACCEPT = 0.36
"""The cosine at which the recogniser of this project's measurements accepts one pair of strangers in a thousand."""

ATTRIBUTES: Mapping[str, str] = {
    "smiling": "a [V] face, smiling",
    "glasses": "a [V] face, with glasses",
    "beard": "a [V] face, with a beard",
    "hat": "a [V] face, with a hat",
}
"""Attributes that a prompt can ask for, of those a classifier knows."""


@dataclass(frozen=True)
class Made:
    """One person's pictures: of the plain prompt, of each style, of each attribute."""

    plain: Pictures
    styled: Mapping[str, Pictures]
    attributes: Mapping[str, Pictures]


@dataclass(frozen=True)
class Metrics:
    """Who measures; a judge that is None leaves its columns out.

    ``accept`` is the cosine above which the recogniser takes a picture for the person.
    """

    recogniser: Recognise | None = None
    classifier: PictureClassifier | None = None
    dino: ImageSimilarity | None = None
    clip: ImageSimilarity | None = None
    accept: float = ACCEPT


def prompts(styles: Sequence[str], attributes: Sequence[str], noun: str) -> dict[str, str]:
    """What is asked for: "" is the plain prompt; styles and attributes by their names."""
    subject = f"a [V] {noun}"
    styled = {name: STYLES[name].phrasings[0].format(subject=subject) for name in styles}
    return {"": subject, **styled, **{name: ATTRIBUTES[name] for name in attributes if name in ATTRIBUTES}}


def measure(
    judges: Metrics,
    subject: Subject,
    used: UInt8[np.ndarray, "h w 3"],
    strangers: Sequence[Float[np.ndarray, " embedding"]],
    made: Made,
    noun: str = "face",
) -> dict[str, float]:
    """The numbers of one person. ``used`` is the photo at the size of the pictures; ``subject`` may be larger.

    ``strangers`` are what the recogniser sees in photos of other people.
    ``noun`` is what CLIP is told that styled pictures are of.
    """
    numbers = {"diversity": diversity(made.plain)}
    if judges.recogniser is not None:
        numbers |= _likeness(judges.recogniser, subject, strangers, made.plain, judges.accept)
        numbers |= _likeness_in_styles(judges.recogniser, subject, used, made.styled) if made.styled else {}
    if judges.classifier is not None:
        numbers |= _followed(judges.classifier, made)
    if judges.dino is not None:
        numbers["dino"] = float(judges.dino.images(made.plain, subject.photo[None]).mean())
    if judges.clip is not None:
        numbers |= _clip(judges.clip, subject, made, noun)
    return numbers


def diversity(pictures: Pictures) -> float:
    """Root mean square difference between two pictures of one prompt, in grey levels of 0..255, mean over pairs."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    pairs = [(i, j) for i in range(len(flat)) for j in range(i)]
    return float(np.mean([np.sqrt(np.mean((flat[i] - flat[j]) ** 2)) for i, j in pairs])) if pairs else float("nan")


def _likeness(
    recogniser: Recognise, subject: Subject, strangers: Sequence[np.ndarray], plain: Pictures, accept: float
) -> dict[str, float]:
    photo, made = recogniser(subject.photo[None])[0], recogniser(plain)
    numbers = {"photo": float((made @ photo).mean()), "accepted": float((made @ photo > accept).mean())}
    if len(subject.others):
        numbers["others"] = float((made @ recogniser(subject.others).T).mean())
    if strangers:
        numbers["strangers"] = float((made @ np.stack(strangers).T).mean())
    return numbers


def _likeness_in_styles(
    recogniser: Recognise, subject: Subject, used: np.ndarray, styled: Mapping[str, Pictures]
) -> dict[str, float]:
    photo = recogniser(subject.photo[None])[0]
    shown = {
        "styled": {name: recogniser(pictures) for name, pictures in styled.items()},
        "filtered": {name: recogniser(STYLES[name].apply(used[None])) for name in styled},
    }
    numbers: dict[str, float] = {}
    for kind, embeddings in shown.items():
        numbers |= _by_style(kind, {name: found @ photo for name, found in embeddings.items()})
    return numbers


def _followed(classifier: PictureClassifier, made: Made) -> dict[str, float]:
    numbers: dict[str, float] = {}
    if made.styled:
        taken_for = {name: classifier.style_of(torch.from_numpy(pictures)) for name, pictures in made.styled.items()}
        right = {name: np.array([style == name for style in found]) for name, found in taken_for.items()}
        numbers |= _by_style("style_accuracy", right)
    if made.attributes:
        shown = [
            yes
            for name, pictures in made.attributes.items()
            for yes in classifier.shows(torch.from_numpy(pictures), name)
        ]
        numbers["attribute_accuracy"] = float(np.mean(shown))
    return numbers


def _by_style(kind: str, values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of all pictures as ``kind``, that of each style's as ``kind/style``."""
    each = {f"{kind}/{name}": float(found.mean()) for name, found in values.items()}
    return {kind: float(np.concatenate(list(values.values())).mean()), **each}


def _clip(clip: ImageSimilarity, subject: Subject, made: Made, noun: str) -> dict[str, float]:
    numbers = {"clip_i": float(clip.images(made.plain, subject.photo[None]).mean())}
    if made.styled:
        texts = [STYLES[name].phrasings[0].format(subject=f"a {noun}") for name, p in made.styled.items() for _ in p]
        numbers["clip_t"] = float(clip.texts(np.concatenate(list(made.styled.values())), texts).mean())
    return numbers
