"""The people of an evaluation: one photo each is used, the others are held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from core.hyperdreambooth.training.data import Faces


@dataclass(frozen=True)
class Subject:
    """A person: the photo that is used, the others, and the words the data has for the photo."""

    identity: str
    photo: UInt8[np.ndarray, "h w 3"]
    others: UInt8[np.ndarray, "n h w 3"]
    attributes: tuple[str, ...] = ()


def subjects(faces: Faces, people: int) -> list[Subject]:
    """The first ``people`` identities with at least two pictures: the first picture is used, the rest are others."""
    several = [places for places in faces.by_identity.values() if len(places) > 1][:people]
    return [
        Subject(faces.identities[p[0]], faces.pictures[p[0]], faces.pictures[p[1:]], faces.attributes[p[0]])
        for p in several
    ]


def faces_of_nobody(faces: Faces, people: int, *, prefix: str = "omi") -> list[Subject]:
    """The first ``people`` generated faces (their identity starts with ``prefix``): their pictures may be published."""
    chosen = [index for index, identity in enumerate(faces.identities) if identity.startswith(prefix)][:people]
    return [Subject(faces.identities[index], faces.pictures[index], faces.pictures[:0]) for index in chosen]
