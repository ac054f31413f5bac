"""Which timesteps the rows of a step are at: one from each of as many equal parts of the schedule as there are rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import BundleError


@dataclass(frozen=True)
class Strata:
    """Every draw sees early and late timesteps; which row is at which is left to chance, but for the ``last`` rows:
    these are at the noisiest.

    ``least_noise`` and ``most_noise`` are the shares of the schedule between which rows are drawn, from its clean end;
    ``noisiest`` is the share of the rows that are drawn from the tenth at the other end instead.
    """

    least_noise: float = 0.0
    noisiest: float = 0.0
    last: int = 0
    most_noise: float = 1.0

    def __post_init__(self) -> None:
        """Bounds that leave something between them."""
        if not 0 <= self.least_noise < self.most_noise <= 1:
            raise BundleError(
                f"least_noise {self.least_noise} has to be below most_noise {self.most_noise}, both from 0 to 1"
            )

    def draw(self, rows: int, generator: torch.Generator) -> Float[Tensor, " rows"]:
        """A place in the schedule for each row: 0 is the picture, 1 is noise."""
        first = rows - self.last
        order = torch.cat(
            [torch.randperm(first, generator=generator), first + torch.randperm(self.last, generator=generator)]
        )
        places = (order + torch.rand(rows, generator=generator)) / rows
        if not self.noisiest:
            return self.least_noise + (self.most_noise - self.least_noise) * places
        below = 1 - self.noisiest
        others = self.least_noise + (min(self.most_noise, 0.9) - self.least_noise) * places / below
        return torch.where(places < below, others, 0.9 + 0.1 * (places - below) / self.noisiest)


EVERYWHERE = Strata()
"""All of the schedule alike."""
