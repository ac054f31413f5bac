"""Lightweight DreamBooth (LiDB, section 4.1): the change of a layer in a frozen random basis.

    dW = A_aux  A  B  B_aux        A_aux: n x a,  A: a x r,  B: r x b,  B_aux: b x m

``A_aux`` has orthonormal columns and ``B_aux`` orthonormal rows; both are frozen and the same for everybody. ``A`` and
``B`` are the person. The basis is a function of the seed and of each target's name and shape alone, made on the CPU in
float64 of basis.py's numbers, so that every machine, device and thread count makes the same one; its hash is taken
after rounding to 1e-4, so that a last bit of some linear-algebra library cannot change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.hyperdreambooth.model.basis import BasisKind, gaussians
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.targets import Target


@dataclass(frozen=True)
class Factors:
    """A personal change as two thin factors. In the basis: ``a x r`` and ``r x b``; merged: ``n x r`` and ``r x m``.

    A leading batch dimension is allowed: one pair for each row (each person) of a batch.
    """

    left: Float[Tensor, "*batch out rank"]
    right: Float[Tensor, "*batch rank in_"]

    def delta(self) -> Float[Tensor, "*batch out in_"]:
        """The product: the change of the weight itself."""
        return self.left @ self.right


Person = Mapping[str, Factors]
"""Target name -> the factors of that target."""


@dataclass(frozen=True)
class Auxiliary:
    """The frozen matrices of one target: ``left`` is ``A_aux``, ``right`` is ``B_aux``."""

    left: Float[Tensor, "n a"]
    right: Float[Tensor, "b m"]


class Basis(Mapping[str, Auxiliary]):
    """The frozen auxiliary matrices of every target, by its name."""

    def __init__(
        self, targets: Iterable[Target], *, seed: int, a: int = 100, b: int = 50, kind: BasisKind = "orthonormal"
    ) -> None:
        self.targets = tuple(targets)
        self.seed, self.a, self.b, self.kind = seed, a, b, kind
        config = LidbConfig(a=a, b=b, seed=seed, basis=kind)
        self._factors = {target.name: _auxiliary(target, config) for target in self.targets}
        self.hash = self._hash()

    def __getitem__(self, name: str) -> Auxiliary:
        return self._factors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._factors)

    def __len__(self) -> int:
        return len(self._factors)

    def to(self, device: torch.device | str) -> Basis:
        """This basis on a device. The hash stays that of the CPU original."""
        moved = object.__new__(Basis)
        moved.__dict__.update(self.__dict__)
        moved._factors = {k: Auxiliary(f.left.to(device), f.right.to(device)) for k, f in self._factors.items()}
        return moved

    def merge(self, person: Person) -> dict[str, Factors]:
        """From in-basis factors to plain low-rank ones: ``A_aux A`` (n x r) and ``B B_aux`` (r x m) for each target."""
        return {
            name: Factors(_through(self[name].left, factors.left), factors.right @ self[name].right)
            for name, factors in person.items()
        }

    def zeros(self, rank: int, *, generator: torch.Generator, batch: tuple[int, ...] = ()) -> dict[str, Factors]:
        """A start whose change is exactly zero: ``A`` zero, ``B`` small and random so that gradients flow.

        It is the same for everybody of a ``batch``.
        """
        person = {}
        for target in self.targets:
            a, b = target.capped(self.a, self.b)
            right = torch.randn(rank, b, generator=generator) / b**0.5
            person[target.name] = Factors(torch.zeros(*batch, a, rank), right.repeat(*batch, 1, 1))
        return person

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self.seed}/{self.a}/{self.b}/{self.kind}".encode())
        for name, factors in self._factors.items():
            digest.update(name.encode())
            for matrix in (factors.left, factors.right):
                digest.update(np.rint(matrix.double().numpy() * 1e4).astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def relax(person: Person, rank: int, *, generator: torch.Generator) -> dict[str, Factors]:
    """Rank relaxation (section 4.3) inside the basis: the same change with room for ``rank`` components.

    The new columns of ``A`` are zero, the new rows of ``B`` random (the same for everybody of a batch), so that the
    change itself stays what it was.
    """
    relaxed = {}
    for name, factors in person.items():
        *batch, a, old = factors.left.shape
        b = factors.right.shape[-1]
        if rank < old:
            raise ValueError(f"cannot relax rank {old} to the lower rank {rank}")
        new = (torch.randn(rank - old, b, generator=generator) / b**0.5).repeat(*batch, 1, 1).to(factors.right)
        left = torch.cat([factors.left, factors.left.new_zeros(*batch, a, rank - old)], dim=-1)
        relaxed[name] = Factors(left, torch.cat([factors.right, new], dim=-2))
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
    a, b = torch.nn.functional.pad(a, (0, missing)), torch.nn.functional.pad(b, (0, 0, 0, missing))
    return Factors(a.to(factors.left), b.to(factors.right).contiguous())


def _through(left: Float[Tensor, "n a"], inner: Float[Tensor, "*batch a rank"]) -> Float[Tensor, "*batch n rank"]:
    """``left @ inner``, reading ``left`` once for all of a batch."""
    if inner.ndim == 2:
        return left @ inner
    people, a, rank = inner.shape
    product = left @ inner.transpose(0, 1).reshape(a, people * rank)
    return product.view(-1, people, rank).transpose(0, 1)


def _auxiliary(target: Target, config: LidbConfig) -> Auxiliary:
    left, right = (torch.from_numpy(numbers) for numbers in gaussians(target, config))
    if config.basis == "orthonormal":
        left, right = _orthonormal_columns(left), _orthonormal_columns(right)
    else:
        left, right = left / target.n**0.5, right / target.m**0.5
    return Auxiliary(left.float(), right.T.contiguous().float())


def _orthonormal_columns(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The Q of a QR decomposition with a positive diagonal of R, which makes it unique."""
    q, r = torch.linalg.qr(matrix)
    signs: Tensor = torch.sign(torch.diagonal(r))
    unique: Tensor = q * signs
    return unique
