"""The numbers of one person in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core.lab.classifier import PictureClassifier
from core.lab.evaluation.behavior.identity import Recogniser, likeness, to_others
from core.lab.evaluation.behavior.rows import Made
from core.lab.evaluation.behavior.structure import between_seeds, with_photo
from core.lab.evaluation.behavior.visible import checked_by, visible
from core.lab.evaluation.records import Record
from core.lab.evaluation.subjects import Subject
from core.lab.evaluation.words import ASKS, POSES
from core.lab.poses import Poses, find_poses


@dataclass(frozen=True)
class Instruments:
    """What measures: recognisers, of which the first one also measures poses and styles; and a classifier."""

    recognisers: Sequence[Recogniser]
    classifier: PictureClassifier | None = None


def measure(instruments: Instruments, subject: Subject, used: Subject, made: Made) -> Record:
    """The record of one person: means over the pictures, and each picture's yaw and pitch.

    ``subject`` has the photos as recognisers see them, ``used`` those at the size of the pictures.
    """
    numbers: Record = {"identity": subject.identity, **made.costs}
    if len(made.plain):
        seen = find_poses(made.plain)
        numbers |= _of_plain(instruments, subject, used, made, seen)
        numbers |= _of_words(instruments, subject, made, seen) if made.asked else {}
    return numbers | (_of_styles(instruments, subject, made) if made.styled else {})


def _of_plain(instruments: Instruments, subject: Subject, used: Subject, made: Made, seen: Poses) -> Record:
    photo = find_poses(used.photo[None])
    numbers: Record = {
        "ssim": with_photo(made.plain, used.photo),
        "found": float(seen.found.mean()),
        "score": float(seen.score.mean()),
        "photo": {"yaw": _listed(photo.yaw)[0], "pitch": _listed(photo.pitch)[0]},
        "yaws": _listed(seen.yaw),
        "pitches": _listed(seen.pitch),
        "yaw": _spread(seen.yaw),
        "pitch": _spread(seen.pitch),
        "structure": between_seeds(made.plain),
    }
    for recogniser in instruments.recognisers:
        numbers |= likeness(recogniser, subject, made.plain, are_others=made.are_others)
    return {key: value for key, value in numbers.items() if not (isinstance(value, float) and np.isnan(value))}


def _of_words(instruments: Instruments, subject: Subject, made: Made, seen: Poses) -> Record:
    """Whether each word is visible where it is asked for, how often where it is not, and what poses cost."""
    numbers: Record = {}
    for word in [word for word in made.asked if checked_by(word, instruments.classifier)]:
        asked = float(visible(word, made.asked[word], instruments.classifier).mean())
        unasked = float(visible(word, made.plain, instruments.classifier, seen).mean())
        numbers |= {f"asked/{word}": asked, f"unasked/{word}": unasked, f"effect/{word}": asked - unasked}
    for kind in ("asked", "unasked", "effect"):
        numbers |= _mean(kind, [numbers[f"{kind}/{word}"] for word in ASKS if f"{kind}/{word}" in numbers])
    posed = [word for word in POSES if word in made.asked]
    numbers |= _mean("pose_right", [numbers[f"asked/{word}"] for word in posed])
    first = instruments.recognisers[0]
    if posed:
        kept = to_others(first, subject, np.concatenate([made.asked[word] for word in posed])).mean()
        numbers["pose_loss"] = float(to_others(first, subject, made.plain).mean() - kept)
    return numbers


def _of_styles(instruments: Instruments, subject: Subject, made: Made) -> Record:
    pictures = np.concatenate(list(made.styled.values()))
    kept = to_others(instruments.recognisers[0], subject, pictures)
    numbers: Record = {f"style_gt/{name}": float(value) for name, value in zip(made.styled, kept, strict=True)}
    numbers |= _mean("style_gt", kept)
    classifier = instruments.classifier
    known = [] if classifier is None else [name for name in made.styled if name in classifier.config.styles]
    if classifier is not None and known:
        found = classifier.style_of(torch.from_numpy(np.concatenate([made.styled[name] for name in known])))
        right = {name: float(style == name) for name, style in zip(known, found, strict=True)}
        numbers |= {f"style_right/{name}": value for name, value in right.items()}
        numbers |= _mean("style_right", list(right.values()))
    return numbers


def _mean(key: str, values: Sequence[float] | np.ndarray) -> Record:
    return {key: float(np.mean(values))} if len(values) else {}


def _spread(degrees: np.ndarray) -> float:
    """The standard deviation between seeds, in degrees; NaN for fewer than two faces."""
    known = degrees[~np.isnan(degrees)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")


def _listed(degrees: np.ndarray) -> list[float | None]:
    return [None if np.isnan(each) else round(float(each), 2) for each in degrees]
