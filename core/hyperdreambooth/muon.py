"""Muon (K. Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/) for batches of thin matrices.

Each step moves a factor by the orthogonal part of its momentum: all of its ``r`` directions equally far, also those in
which the gradient is small. torch.optim.Muon takes single matrices and approximates the orthogonal part by an
iteration; for thin ones it is exact and cheaper, by the inverse root of their ``r x r`` Gram matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-6
"""Of the largest eigenvalue of a Gram matrix: directions with less of the gradient than that move less."""


class Muon(torch.optim.Optimizer):
    """Factors ``people x n x r`` and ``people x r x m``, of one rank; people do not see each other.

    ``lr`` is the root mean square of what a step adds to an element, as it is (nearly) of Adam's.
    """

    def __init__(self, factors: Sequence[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(factors, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nobody here gives a closure
        """Move every factor that has a gradient, by Nesterov's momentum of it."""
        for group in self.param_groups:
            factors = [factor for factor in group["params"] if factor.grad is not None]
            moves = orthogonal([_tall(self._momentum(factor, group["momentum"])) for factor in factors])
            for factor, move in zip(factors, moves, strict=True):
                _tall(factor).add_(move, alpha=-group["lr"] * move.shape[-2] ** 0.5)

    def _momentum(self, factor: Tensor, momentum: float) -> Tensor:
        state = self.state[factor]
        if not state:
            state["velocity"] = torch.zeros_like(factor)
        velocity = state["velocity"].mul_(momentum).add_(factor.grad)
        ahead: Tensor = factor.grad + momentum * velocity
        return ahead


def orthogonal(matrices: Sequence[Float[Tensor, "people _ rank"]]) -> list[Float[Tensor, "people _ rank"]]:
    """The nearest matrices with orthonormal columns (``U V^T`` of each ``U S V^T``); of a zero matrix, zero.

    Lengths may differ: what is decomposed, all at once, are the Gram matrices.
    """
    gram = torch.stack([matrix.mT @ matrix for matrix in matrices]).double()
    values, vectors = torch.linalg.eigh(gram)
    floor = LEAST * values[..., -1:] + torch.finfo(torch.float32).tiny
    roots = (vectors * values.maximum(floor).rsqrt().unsqueeze(-2)) @ vectors.mT
    return [matrix @ root.to(matrix) for matrix, root in zip(matrices, roots, strict=True)]


def _tall(factor: Tensor) -> Tensor:
    """A view with at least as many rows as columns."""
    return factor if factor.shape[-2] >= factor.shape[-1] else factor.mT
