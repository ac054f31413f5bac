"""How alike generated pictures are to the person: mean cosines, by every face recogniser there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.hyperdreambooth.formats.lidb_weights import LidbWeights
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.prediction import identify
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import generate

Embed = Callable[[UInt8[np.ndarray, "n side side 3"]], Float[np.ndarray, "n embedding"]]
"""Aligned square pictures to unit vectors."""

OWN = "bundle"
"""The name of the recogniser that ships with the bundle."""

PICTURES = 4
"""How many pictures are generated to measure likeness."""


@dataclass(frozen=True)
class Recogniser:
    """A face recogniser and the name its likeness is given under."""

    name: str
    embed: Embed


def recognisers_of(bundle: Bundle, others: Sequence[Recogniser] = ()) -> tuple[Recogniser, ...]:
    """The bundle's recogniser, then the ``others``; without any, the hypernetwork's encoder.

    The encoder is the last resort, because it would measure what it predicted itself.
    """
    own = () if bundle.recogniser is None else (Recogniser(OWN, bundle.recogniser.embed),)
    if own or others or not bundle.has_hypernetwork:
        return (*own, *others)
    return (Recogniser("hypernetwork", lambda pictures: identify(bundle, torch.from_numpy(pictures)).numpy()),)


def measure_likeness(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    row: Row[LidbWeights],
    recognisers: Sequence[Recogniser],
    *,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """The mean cosine of the photos with a few pictures of ``row``, by the name of each recogniser.

    The pictures have seeds from the row's own on. Without recognisers none are made, and the result is empty.

    Raises:
        JobCanceled: ``should_stop`` returned True; it is called before each step.
    """
    if not recognisers:
        return {}
    rows = [replace(row, seed=row.seed + number) for number in range(PICTURES)]
    made = generate(bundle, rows, on_step=on_step, should_stop=should_stop).numpy()
    real = photos.numpy()
    return {each.name: _mean_cosine(each.embed(real), each.embed(made)) for each in recognisers}


def _mean_cosine(one: Float[np.ndarray, "n embedding"], other: Float[np.ndarray, "m embedding"]) -> float:
    return float(np.clip((one @ other.T).mean(), -1.0, 1.0))
