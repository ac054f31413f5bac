"""A target: one personalized layer, without torch.

A target is a linear layer ``W`` of shape ``n x m`` (out x in) of the UNet or of a text encoder, or a convolution of the
UNet, whose kernel is taken as such a matrix: its ``m`` inputs are channels x kernel x kernel, in PyTorch's order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One personalized layer: ``y = W x`` with ``W`` of ``n`` rows (outputs) and ``m`` columns (inputs).

    ``kernel`` is the side of a convolution's kernel, of which ``m`` has a column for each channel and place; a linear
    layer has none.
    """

    name: str
    n: int
    m: int
    kernel: int | None = None

    def capped(self, a: int, b: int) -> tuple[int, int]:
        """The inner widths of this layer's basis: ``a`` and ``b``, never wider than the layer itself."""
        return min(a, self.n), min(b, self.m)
