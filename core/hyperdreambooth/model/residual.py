"""The convolutional residual of the small face networks."""

from __future__ import annotations

from torch import nn


def residual(channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each behind group norm and SiLU: what is added to its own input."""
    return nn.Sequential(
        nn.GroupNorm(8, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(8, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
