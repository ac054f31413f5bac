"""How alike generated pictures are to the person: mean cosines, by every face recogniser there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.prediction import identify
from core.hyperdreambooth.sampling import Row, generate

Embed = Callable[[UInt8[np.ndarray, "n side side 3"]], Float[np.ndarray, "n embedding"]]
"""Aligned square pictures to unit vectors."""

OWN = "bundle"
"""The name of the judge that ships with the bundle."""

PICTURES = 4
"""How many pictures are made to be judged."""


@dataclass(frozen=True)
class Judge:
    """A face recogniser and what it is called. A cosine below ``poor`` is worth a second try; None never is.

    The threshold is its own: one recogniser's cosines say nothing of another's.
    """

    name: str
    embed: Embed
    poor: float | None = None


@dataclass(frozen=True)
class Likeness:
    """What each judge says, by name; the bundle's own is the first where it has one."""

    by: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the judges."""
        return float(np.mean(list(self.by.values())))

    def poor(self, judges: Sequence[Judge]) -> Judge | None:
        """The first of the judges whose threshold is not reached."""
        return next((judge for judge in judges if judge.poor is not None and self.by[judge.name] < judge.poor), None)


def judges_of(bundle: Bundle, others: Sequence[Judge] = ()) -> tuple[Judge, ...]:
    """The bundle's recogniser, then the ``others``. The hypernetwork's encoder judges only where nobody else does:
    it would judge what it predicted itself.
    """
    poor = bundle.config.finetune.poor_likeness
    own = () if bundle.recogniser is None else (Judge(OWN, bundle.recogniser.embed, poor),)
    if own or others or not bundle.has_hypernetwork:
        return (*own, *others)
    return (Judge("hypernetwork", lambda pictures: identify(bundle, torch.from_numpy(pictures)).numpy(), poor),)


def measure_likeness(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    row: Row,
    judges: Sequence[Judge],
    *,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Likeness | None:
    """Mean cosines between the photos and a few pictures of ``row``, with seeds from its own on; None without judges.

    Raises:
        JobCanceled: ``should_stop`` said so; it is asked before each step.
    """
    if not judges:
        return None
    rows = [Row(row.prompt, weights=row.weights, seed=row.seed + number) for number in range(PICTURES)]
    made = generate(bundle, rows, on_step=on_step, should_stop=should_stop).numpy()
    real = photos.numpy()
    return Likeness({judge.name: _mean_cosine(judge.embed(real), judge.embed(made)) for judge in judges})


def _mean_cosine(one: Float[np.ndarray, "n embedding"], other: Float[np.ndarray, "m embedding"]) -> float:
    return float(np.clip((one @ other.T).mean(), -1.0, 1.0))
