"""What personalizing and generating take and return, written once for the method and for the worker above it.

``W`` is how weights are held: tensors (``LidbWeights``) in the method, bytes of a .lidb file in the worker, whose
parent process must not import torch. Nothing here does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")
V = TypeVar("V")


@dataclass(frozen=True)
class PersonalizeOptions(Generic[W]):
    """What a caller may choose; None takes the bundle's default.

    ``start``: weights of the same person, made from other photos, that finetuning continues from.
    """

    rank: int | None = None
    steps: int | None = None
    seed: int = 0
    class_noun: str | None = None
    start: W | None = None

    def converted(self, to: Callable[[W], V]) -> PersonalizeOptions[V]:
        """The same options with weights held in another way."""
        return PersonalizeOptions(**{**vars(self), "start": _converted(self.start, to)})


@dataclass(frozen=True)
class Personalized(Generic[W]):
    """Refined weights, those of the last preview before them (if there was one), and how they came about.

    ``likeness_by``: the mean cosine by each recogniser's name; empty without recognisers. ``seconds`` are by stage.
    """

    weights: W
    preview: W | None
    likeness_by: dict[str, float]
    kept_step: int
    seconds: dict[str, float] = field(default_factory=dict)

    def converted(self, to: Callable[[W], V]) -> Personalized[V]:
        """The same result with weights held in another way."""
        return Personalized(**{**vars(self), "weights": to(self.weights), "preview": _converted(self.preview, to)})

    @property
    def likeness(self) -> float | None:
        """The mean over the recognisers; None without one."""
        return sum(self.likeness_by.values()) / len(self.likeness_by) if self.likeness_by else None


@dataclass(frozen=True)
class Row(Generic[W]):
    """One picture to generate: ``[V]`` in the prompt stands for the subject of ``weights`` (None: no subject)."""

    prompt: str
    negative_prompt: str = ""
    weights: W | None = None
    seed: int = 0
    guidance_scale: float | None = None

    def converted(self, to: Callable[[W], V]) -> Row[V]:
        """The same row with weights held in another way."""
        return Row(**{**vars(self), "weights": _converted(self.weights, to)})


def _converted(weights: W | None, to: Callable[[W], V]) -> V | None:
    return None if weights is None else to(weights)
