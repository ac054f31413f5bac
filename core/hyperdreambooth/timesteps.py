"""Which timesteps the rows of a step are at: one from each of as many equal parts of the schedule as there are rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import BundleError


@dataclass(frozen=True)
class TimestepSampler:
    """Stratified timesteps: each draw has early and late ones, and chance assigns them to rows.

    ``least_noise``, ``most_noise``: shares of the schedule, from its clean end, between which rows are drawn.
    ``cleanest``: the share of the rows that are drawn from below ``least_noise`` instead; ``noisiest``: the share that
    is drawn from the last tenth of the schedule.
    ``last``: so many rows, the last ones, get the noisiest timesteps of the draw.
    """

    least_noise: float = 0.0
    noisiest: float = 0.0
    last: int = 0
    most_noise: float = 1.0
    cleanest: float = 0.0

    def __post_init__(self) -> None:
        """Raises BundleError for bounds without room between them, and for shares that do not add up."""
        if not 0 <= self.least_noise < self.most_noise <= 1:
            raise BundleError(
                f"least_noise {self.least_noise} has to be below most_noise {self.most_noise}, both from 0 to 1"
            )
        if min(self.cleanest, self.noisiest) < 0 or self.cleanest + self.noisiest > 1:
            raise BundleError(f"cleanest {self.cleanest} and noisiest {self.noisiest} are shares of the same rows")
        if self.cleanest and not self.least_noise:
            raise BundleError(f"there is nothing below least_noise 0 that cleanest {self.cleanest} could be drawn from")

    def draw(self, rows: int, generator: torch.Generator) -> Float[Tensor, " rows"]:
        """A place in the schedule for each row, in 0..1: 0 is the picture, 1 is noise."""
        first = rows - self.last
        order = torch.cat(
            [torch.randperm(first, generator=generator), first + torch.randperm(self.last, generator=generator)]
        )
        places = (order + torch.rand(rows, generator=generator)) / rows
        top = min(self.most_noise, 0.9) if self.noisiest else self.most_noise
        middle = 1 - self.cleanest - self.noisiest
        drawn = torch.empty_like(places)
        start = 0.0
        for share, low, high in (
            (self.cleanest, 0.0, self.least_noise),
            (middle, self.least_noise, top),
            (self.noisiest, 0.9, 1.0),
        ):
            if share > 0:
                drawn = torch.where(places < start, drawn, low + (high - low) * (places - start) / share)
            start += share
        return drawn


UNIFORM = TimestepSampler()
"""Uniform over the whole schedule."""
