"""Muon (K. Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/) for batches of small matrices.

Each step moves a matrix by the orthogonal part of its momentum: all of its directions equally far, also those in which
the gradient is small. torch.optim.Muon takes single matrices and approximates the orthogonal part by an iteration; for
thin ones and for the kernels of a small model it is exact and cheaper, by the inverse root of their Gram matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-6
"""Of the largest eigenvalue of a Gram matrix: directions with less of the gradient than that move less."""


class Muon(torch.optim.Optimizer):
    """Factors ``people x n x r`` and ``people x r x m``; people do not see each other.

    ``kernels``: parameters are single matrices instead, ``out x in`` or ``out x in x h x w``, as layers have them; what
    has three dimensions is several matrices.
    ``lr`` is the root mean square of what a step adds to an element, as it is (nearly) of Adam's.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        kernels: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.kernels = kernels

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # there is no closure here
        """Move every parameter that has a gradient, by Nesterov's momentum of it."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            momenta = [self._matrix(ahead) for ahead in self._momenta(moved, group["momentum"])]
            for parameter, momentum, move in zip(moved, momenta, orthogonal(momenta), strict=True):
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(move.reshape(parameter.shape), alpha=-group["lr"] * max(momentum.shape[-2:]) ** 0.5)

    def _matrix(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(1)[None] if self.kernels and tensor.ndim != 3 else tensor

    def _momenta(self, parameters: list[Tensor], momentum: float) -> Sequence[Tensor]:
        if not parameters:
            return []
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["velocity"] for parameter in parameters]
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, gradients)
        ahead: Sequence[Tensor] = torch._foreach_add(gradients, velocities, alpha=momentum)  # noqa: SLF001 - public in all but name
        return ahead


def orthogonal(matrices: Sequence[Float[Tensor, "people _ _"]]) -> list[Float[Tensor, "people _ _"]]:
    """The nearest matrices with orthonormal rows or columns (``U V^T`` of each ``U S V^T``); of a zero matrix, zero.

    What is decomposed are the Gram matrices of their short sides, those of one size all at once.
    """
    tall = [matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT for matrix in matrices]
    alike = defaultdict(list)
    for place, matrix in enumerate(tall):
        alike[matrix.shape[-1]].append(place)
    found = list(tall)
    for places in alike.values():
        roots = _inverse_roots(torch.cat([tall[place].mT @ tall[place] for place in places]))
        for place, root in zip(places, roots.split([len(tall[place]) for place in places]), strict=True):
            found[place] = tall[place] @ root
    return [a if b.shape == a.shape else a.mT for a, b in zip(found, matrices, strict=True)]


def _inverse_roots(gram: Float[Tensor, "n r r"]) -> Float[Tensor, "n r r"]:
    values, vectors = torch.linalg.eigh(gram.double())
    floor = LEAST * values[..., -1:] + torch.finfo(torch.float32).tiny
    roots: Tensor = (vectors * values.maximum(floor).rsqrt().unsqueeze(-2)) @ vectors.mT
    return roots.to(gram)
