"""Lightweight DreamBooth (LiDB, section 4.1): the change of a layer in a frozen random basis.

    dW = A_aux  A  B  B_aux        A_aux: n x a,  A: a x r,  B: r x b,  B_aux: b x m

``A_aux`` has orthonormal columns and ``B_aux`` orthonormal rows; both are frozen and the same for every subject. ``A``
and ``B`` are a subject's factors. The basis is a function of the seed and of each target's name and shape alone. It is
made on the CPU in float64 from basis.py's numbers, so that every machine, device and thread count makes the same one;
its hash is taken after rounding to 1e-4, so that the last bit of a linear-algebra library cannot change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.hyperdreambooth.model.basis import normal_matrices
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.target import Target


@dataclass(frozen=True)
class Factors:
    """The change of one layer as two thin factors. In the basis: ``a x r`` and ``r x b``; merged: ``n x r``, ``r x m``.

    A leading batch dimension is allowed: one pair for each row (each person) of a batch.
    """

    left: Float[Tensor, "*batch out rank"]
    right: Float[Tensor, "*batch rank in_"]

    def delta(self) -> Float[Tensor, "*batch out in_"]:
        """The product: the change of the weight itself."""
        return self.left @ self.right


LayerFactors = Mapping[str, Factors]
"""Target name -> the factors of that target: one subject's change of the whole model, or a batch of subjects'."""

NO_FACTORS: LayerFactors = {}
"""No change: the base model as it is."""


@dataclass(frozen=True)
class Auxiliary:
    """The frozen matrices of one target: ``left`` is ``A_aux``, ``right`` is ``B_aux``."""

    left: Float[Tensor, "n a"]
    right: Float[Tensor, "b m"]


class Basis(Mapping[str, Auxiliary]):
    """The frozen auxiliary matrices of every target, by its name."""

    kind = "orthonormal"
    """Part of the hash, for bases whose matrices are made in another way."""

    def __init__(self, targets: Iterable[Target], config: LidbConfig) -> None:
        self.targets = tuple(targets)
        self.config = config
        self._matrices = {target.name: self.auxiliary(target, config) for target in self.targets}
        self.hash = self._hash()

    @staticmethod
    def auxiliary(target: Target, config: LidbConfig) -> Auxiliary:
        """The matrices of one target: the Q of random normal ones, in float64, then rounded to float32."""
        left, right = (_orthonormal_columns(torch.from_numpy(matrix)) for matrix in normal_matrices(target, config))
        return Auxiliary(left.float(), right.T.contiguous().float())

    def __getitem__(self, name: str) -> Auxiliary:
        return self._matrices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)

    def to(self, device: torch.device | str) -> Basis:
        """This basis on a device. The hash stays that of the CPU original."""
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__)
        moved._matrices = {k: Auxiliary(f.left.to(device), f.right.to(device)) for k, f in self._matrices.items()}
        return moved

    def merge(self, factors: LayerFactors) -> dict[str, Factors]:
        """From factors in the basis to low-rank ones of the layers: ``A_aux A`` (n x r) and ``B B_aux`` (r x m)."""
        return {
            name: Factors(_through(self[name].left, pair.left), pair.right @ self[name].right)
            for name, pair in factors.items()
        }

    def zeros(self, rank: int, *, generator: torch.Generator, batch: tuple[int, ...] = ()) -> dict[str, Factors]:
        """A start whose change is exactly zero: ``A`` zero, ``B`` small and random so that gradients flow.

        It is the same for every subject of a ``batch``.
        """
        factors = {}
        for target in self.targets:
            a, b = target.capped(self.config.a, self.config.b)
            right = torch.randn(rank, b, generator=generator) / b**0.5
            factors[target.name] = Factors(torch.zeros(*batch, a, rank), right.repeat(*batch, 1, 1))
        return factors

    def _hash(self) -> str:
        config = self.config
        digest = hashlib.sha256(f"{config.seed}/{config.a}/{config.b}/{self.kind}".encode())
        for name, matrices in self._matrices.items():
            digest.update(name.encode())
            for matrix in (matrices.left, matrices.right):
                digest.update(np.rint(matrix.double().numpy() * 1e4).astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def with_rank(factors: LayerFactors, rank: int, *, generator: torch.Generator) -> dict[str, Factors]:
    """Factors of exactly ``rank``: relaxed to a higher one, or the closest of a lower one."""
    if all(pair.left.shape[-1] <= rank for pair in factors.values()):
        return relax(factors, rank, generator=generator)
    return {name: truncate(pair, rank) for name, pair in factors.items()}


def relax(factors: LayerFactors, rank: int, *, generator: torch.Generator) -> dict[str, Factors]:
    """Rank relaxation (section 4.3): the same change with space for ``rank`` components.

    The new columns of ``A`` are zero, the new rows of ``B`` random (the same for every subject of a batch), so that the
    change itself stays what it was.

    Raises:
        ValueError: ``rank`` is below the factors' own.
    """
    relaxed = {}
    for name, pair in factors.items():
        *batch, a, old = pair.left.shape
        b = pair.right.shape[-1]
        if rank < old:
            raise ValueError(f"cannot relax rank {old} to the lower rank {rank}")
        new = (torch.randn(rank - old, b, generator=generator) / b**0.5).repeat(*batch, 1, 1).to(pair.right)
        left = torch.cat([pair.left, pair.left.new_zeros(*batch, a, rank - old)], dim=-1)
        relaxed[name] = Factors(left, torch.cat([pair.right, new], dim=-2))
    return relaxed


def truncate(factors: Factors, rank: int) -> Factors:
    """The closest factors of ``rank`` (Eckart-Young), balanced: both carry the square roots of the singular values.

    Where the change has fewer components than ``rank``, zeros fill up.
    """
    left, inner_left = torch.linalg.qr(factors.left.double())
    right, inner_right = torch.linalg.qr(factors.right.mT.double())
    u, s, vt = torch.linalg.svd(inner_left @ inner_right.mT, full_matrices=False)
    roots = s[..., None, :rank].sqrt()
    a, b = left @ u[..., :rank] * roots, (right @ vt[..., :rank, :].mT * roots).mT
    missing = rank - roots.shape[-1]
    a, b = nn.functional.pad(a, (0, missing)), nn.functional.pad(b, (0, 0, 0, missing))
    return Factors(a.to(factors.left), b.to(factors.right).contiguous())


def _through(left: Float[Tensor, "n a"], inner: Float[Tensor, "*batch a rank"]) -> Float[Tensor, "*batch n rank"]:
    """``left @ inner``, reading ``left`` once for all of a batch."""
    if inner.ndim == 2:
        return nn.functional.linear(left, inner.mT)  # at rank 4 less than half the time of ``left @ inner``
    people, a, rank = inner.shape
    product = nn.functional.linear(left, inner.mT.reshape(people * rank, a))
    return product.view(-1, people, rank).transpose(0, 1)


def _orthonormal_columns(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The Q of a QR decomposition with a positive diagonal of R, which makes it unique."""
    q, r = torch.linalg.qr(matrix)
    signs: Tensor = torch.sign(torch.diagonal(r))
    unique: Tensor = q * signs
    return unique
