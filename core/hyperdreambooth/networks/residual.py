"""The residual branch of the small face networks."""

from __future__ import annotations

from torch import nn


def residual_branch(channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each after group norm and SiLU; the caller adds the result to the input."""
    return nn.Sequential(
        nn.GroupNorm(8, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(8, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
