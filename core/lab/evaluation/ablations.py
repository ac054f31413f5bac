"""Variants that exist to be compared with the method, outside the product: another basis, weights outside it."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import save

from core.hyperdreambooth.finetune import TrainingLatents, finetune
from core.hyperdreambooth.model.adapters import unstack
from core.hyperdreambooth.model.basis import normal_matrices
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig, LidbConfig
from core.hyperdreambooth.model.lidb import Auxiliary, Basis, Factors, LayerFactors
from core.hyperdreambooth.model.target import Target


class GaussianBasis(Basis):
    """The same random normal matrices as of the orthonormal basis, scaled to columns of about unit length."""

    kind = "gaussian"

    @staticmethod
    def auxiliary(target: Target, config: LidbConfig) -> Auxiliary:
        """See Basis."""
        left, right = (torch.from_numpy(matrix) for matrix in normal_matrices(target, config))
        left, right = left / target.n**0.5, right / target.m**0.5
        return Auxiliary(left.float(), right.T.contiguous().float())


class GaussianBundle(Bundle):
    """A bundle whose basis is Gaussian instead of orthonormal."""

    @cached_property
    def basis(self) -> Basis:
        """See Bundle."""
        with torch.inference_mode(mode=False):
            return GaussianBasis(self.targets, self.config.lidb).to(self.device)


def with_gaussian_basis(bundle: Bundle) -> Bundle:
    """The same model, personalized in a Gaussian basis."""
    parts: dict[str, Any] = {field.name: getattr(bundle, field.name) for field in fields(bundle)}
    return GaussianBundle(**parts)


class _NoBasis(Basis):
    """Factors are the layers' own: there is nothing to merge them with."""

    def __init__(self) -> None:
        """There are no matrices."""
        self._matrices = {}

    def merge(self, factors: LayerFactors) -> dict[str, Factors]:
        """The factors themselves."""
        return dict(factors)


class _FreeBundle(Bundle):
    """A bundle for factors that are free of any basis."""

    @cached_property
    def basis(self) -> Basis:
        """See Bundle."""
        return _NoBasis()


def finetune_full_lora(
    bundle: Bundle, pictures: TrainingLatents, start: LayerFactors, config: FinetuneConfig, generator: torch.Generator
) -> list[tuple[LayerFactors, int]]:
    """Finetune the layers' own low-rank factors, free of the basis. Returns each person's as stored, and the bytes."""
    parts = {field.name: getattr(bundle, field.name) for field in fields(bundle)}
    tuned = finetune(_FreeBundle(**parts), pictures, bundle.basis.merge(start), config, generator=generator)
    return [_stored(factors) for factors in unstack(tuned.factors)]


def _stored(factors: LayerFactors) -> tuple[LayerFactors, int]:
    """Factors rounded to fp16, and the bytes of a file that holds them."""
    halves = {name: Factors(pair.left.half(), pair.right.half()) for name, pair in factors.items()}
    flat = torch.cat([matrix.flatten().cpu() for pair in halves.values() for matrix in (pair.left, pair.right)])
    rounded = {name: Factors(pair.left.float(), pair.right.float()) for name, pair in halves.items()}
    return rounded, len(save({"values": flat}))
