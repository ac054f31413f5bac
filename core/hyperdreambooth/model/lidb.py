"""Lightweight DreamBooth (LiDB, section 4.1): the change of a layer in a frozen random basis.

    dW = A_aux  A  B  B_aux        A_aux: n x a,  A: a x r,  B: r x b,  B_aux: b x m

``A_aux`` has orthonormal columns and ``B_aux`` orthonormal rows; both are frozen and the same for every subject. ``A``
and ``B`` are a subject's factors. The basis is a function of the seed and of each target's name and shape alone. It is
made on the CPU in float64 from basis.py's numbers, so that every machine, device and thread count makes the same one;
its hash is taken after rounding to 1e-4, so that the last bit of a linear-algebra library cannot change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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


@dataclass(frozen=True)
class _Stack:
    """The matrices of one shape as one tensor, so that one product serves many layers: a basis is read fast."""

    names: tuple[str, ...]
    matrices: Float[Tensor, "names rows columns"]

    @classmethod
    def all_of(cls, matrices: Mapping[str, Tensor]) -> tuple[_Stack, ...]:
        """The matrices by their shapes."""
        names: dict[torch.Size, list[str]] = {}
        for name, matrix in matrices.items():
            names.setdefault(matrix.shape, []).append(name)
        return tuple(cls(tuple(each), torch.stack([matrices[name] for name in each])) for each in names.values())

    def to(self, device: torch.device | str) -> _Stack:
        """These on a device."""
        return _Stack(self.names, self.matrices.to(device))

    def of(self, factors: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Float[Tensor, "chosen rows columns"]]:
        """The targets that ``factors`` have, and their matrices: a copy only where some are missing."""
        chosen = [number for number, name in enumerate(self.names) if name in factors]
        if len(chosen) == len(self.names):
            return self.names, self.matrices
        return tuple(self.names[number] for number in chosen), self.matrices[chosen]


class Basis(Mapping[str, Auxiliary]):
    """The frozen auxiliary matrices of every target, by its name."""

    kind = "orthonormal"
    """Part of the hash, for bases whose matrices are made in another way."""

    def __init__(self, targets: Iterable[Target], config: LidbConfig) -> None:
        self.targets = tuple(targets)
        self.config = config
        made = {target.name: self.auxiliary(target, config) for target in self.targets}
        self._arrange(
            _Stack.all_of({name: each.left for name, each in made.items()}),
            _Stack.all_of({name: each.right for name, each in made.items()}),
        )
        self.hash = self._hash()

    @staticmethod
    def auxiliary(target: Target, config: LidbConfig) -> Auxiliary:
        """The matrices of one target: the Q of random normal ones, in float64, then rounded to float32."""
        left, right = (_orthonormal_columns(torch.from_numpy(matrix)) for matrix in normal_matrices(target, config))
        return Auxiliary(left.float(), right.T.float())

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
        moved._arrange(*(tuple(each.to(device) for each in side) for side in (self._left, self._right)))
        return moved

    def merge(self, factors: LayerFactors) -> dict[str, Factors]:
        """From factors in the basis to low-rank ones of the layers: ``A_aux A`` (n x r) and ``B B_aux`` (r x m).

        The factors of all layers have one rank.
        """
        lefts = _by_layer(self._left, {name: pair.left for name, pair in factors.items()}, _left_products)
        rights = _by_layer(self._right, {name: pair.right for name, pair in factors.items()}, _right_products)
        return {name: Factors(lefts[name], rights[name]) for name in factors}

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

    def _arrange(self, left: tuple[_Stack, ...], right: tuple[_Stack, ...]) -> None:
        self._left, self._right = left, right
        lefts, rights = (
            {name: matrix for stack in side for name, matrix in zip(stack.names, stack.matrices, strict=True)}
            for side in (left, right)
        )
        self._matrices = {each.name: Auxiliary(lefts[each.name], rights[each.name]) for each in self.targets}

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


def _by_layer(
    stacks: Iterable[_Stack], factors: Mapping[str, Tensor], multiply: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Each layer's product with its matrix of the basis; ``multiply`` is called once for all layers of a stack."""
    products: dict[str, Tensor] = {}
    for stack in stacks:
        names, outer = stack.of(factors)
        if names:
            inner = torch.stack([factors[name] for name in names])
            products.update(zip(names, multiply(outer, inner), strict=True))
    return products


def _left_products(
    outer: Float[Tensor, "k n a"], inner: Float[Tensor, "k *batch a rank"]
) -> Float[Tensor, "k *batch n rank"]:
    """``outer @ inner`` of each layer, reading ``outer`` once for all of a batch."""
    columns = inner.movedim(-2, 1)
    products: Tensor = torch.bmm(outer, columns.flatten(2)).unflatten(2, columns.shape[2:])
    return products.movedim(1, -2)


def _right_products(
    outer: Float[Tensor, "k b m"], inner: Float[Tensor, "k *batch rank b"]
) -> Float[Tensor, "k *batch rank m"]:
    """``inner @ outer`` of each layer, the same way."""
    products: Tensor = torch.bmm(inner.flatten(1, -2), outer).unflatten(1, inner.shape[1:-1])
    return products


def _orthonormal_columns(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The Q of a QR decomposition with a positive diagonal of R, which makes it unique."""
    q, r = torch.linalg.qr(matrix)
    signs: Tensor = torch.sign(torch.diagonal(r))
    unique: Tensor = q * signs
    return unique
