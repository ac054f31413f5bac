"""The ``.lidb`` file: one person's weights, self-describing, checked when opened. The format is in docs/lidb-format.md.

A file is safetensors (never pickle) with two flat tensors, ``values`` and ``scales``, and a JSON description. The
values are the factors of the targets in file order, left before right; the description pins bundle, basis and target
list by hash, so that names need not be stored and 192 targets at rank 4 stay under 120 KB in int8.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int8
from safetensors.torch import save
from torch import Tensor

from core.hyperdreambooth.formats import lidb_file
from core.hyperdreambooth.formats.exports import LayerShape, Layout
from core.hyperdreambooth.formats.lidb_file import LidbFile, Precision, WeightsMetadata
from core.hyperdreambooth.model.basis import widths
from core.hyperdreambooth.model.bundle import Bundle, merged
from core.hyperdreambooth.model.config import Relaxation
from core.hyperdreambooth.model.lidb import Factors, Person

__all__ = [
    "LidbWeights",
    "Precision",
    "WeightsMetadata",
    "describe",
    "from_bytes",
    "layout_of",
    "merged_factors",
    "sha256",
    "to_bytes",
    "unpack",
]

_FLOATS: dict[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, eq=False)
class LidbWeights:
    """One person. ``scales`` belong to int8 values, one for each column of ``A`` and each row of ``B``."""

    metadata: WeightsMetadata
    values: Int8[Tensor, " values"] | Float[Tensor, " values"]
    scales: Float[Tensor, " scales"]


def describe(
    bundle: Bundle,
    person: Person,
    *,
    kind: Relaxation,
    class_noun: str,
    kept_step: int,
    precision: Precision | None = None,
) -> LidbWeights:
    """Pack factors (without a batch dimension) for a bundle: int8 in the basis, fp16 for a full LoRA, unless asked."""
    chosen: Precision = precision or ("int8" if kind == "lidb" else "fp16")
    rank = next(iter(person.values())).left.shape[-1]
    values, scales = [], []
    for target in bundle.targets:
        factors = person[target.name]
        for matrix in (factors.left.mT, factors.right):
            rows = matrix.detach().to("cpu", torch.float32)
            if chosen == "int8":
                rows, scale = _quantise(rows)
                scales.append(scale)
            values.append(rows.flatten() if chosen == "int8" else rows.flatten().to(_FLOATS[chosen]))
    metadata = WeightsMetadata(
        **_pins(bundle),
        rank=rank,
        kind=kind,
        precision=chosen,
        class_noun=class_noun,
        identifier=bundle.identifier,
        prompt=f"a {bundle.identifier} {class_noun}",
        kept_step=kept_step,
    )
    return LidbWeights(
        metadata, torch.cat(values), torch.cat(scales) if scales else torch.empty(0, dtype=torch.float16)
    )


def merged_factors(weights: LidbWeights, bundle: Bundle) -> Person:
    """The factors as adapters take them, on the bundle's device.

    Raises:
        WeightsMismatch: the weights were made for another base model, basis or list of targets.
        WeightsFormat: the numbers are too few, too many, or not finite.
    """
    return merged(bundle, unpack(weights, bundle), kind=weights.metadata.kind)


def unpack(weights: LidbWeights, bundle: Bundle) -> dict[str, Factors]:
    """The factors of every target as float32, in the basis or out of it as ``metadata.kind`` says. Raises as above."""
    lidb_file.check_pins(weights.metadata, _pins(bundle))
    file = LidbFile(weights.metadata, weights.values.numpy(), weights.scales.numpy())
    shapes = [widths(target, bundle.config.lidb, weights.metadata.kind) for target in bundle.targets]
    person = {}
    for target, (left, right) in zip(bundle.targets, lidb_file.split(file, shapes), strict=True):
        rows, columns = torch.from_numpy(left).to(bundle.device), torch.from_numpy(right).to(bundle.device)
        person[target.name] = Factors(rows.mT.contiguous(), columns)
    return person


def to_bytes(weights: LidbWeights) -> bytes:
    """The file. The same weights give the same bytes."""
    text = json.dumps(asdict(weights.metadata), separators=(",", ":"), sort_keys=True)
    return save({"values": weights.values, "scales": weights.scales}, metadata={"lidb": text})


def from_bytes(data: bytes) -> LidbWeights:
    """Open a file; whether it fits a bundle is checked when it is used.

    Raises:
        WeightsFormat: not a .lidb file, another version, damaged, too large, or with numbers that are not finite.
    """
    file = lidb_file.read(data)
    return LidbWeights(file.metadata, torch.from_numpy(file.values.copy()), torch.from_numpy(file.scales.copy()))


def layout_of(bundle: Bundle) -> Layout:
    """What exports need to know of the bundle."""
    layers = tuple(LayerShape(target.name, target.n, target.m, target.kernel) for target in bundle.targets)
    width = int(bundle.unet.config.cross_attention_dim)
    return Layout(
        layers=layers, lidb=bundle.config.lidb, resolution=bundle.resolution, text_width=width, pins=_pins(bundle)
    )


def sha256(data: bytes) -> str:
    """The hash by which a file is known."""
    return hashlib.sha256(data).hexdigest()


def _pins(bundle: Bundle) -> dict[str, Any]:
    return {
        "bundle": bundle.name,
        "fingerprint": bundle.fingerprint,
        "targets": bundle.targets_hash,
        "layers": len(bundle.targets),
        "basis": bundle.basis.hash,
        "basis_seed": bundle.basis.seed,
        "preset": bundle.config.lidb.preset,
    }


def _quantise(rows: Float[Tensor, "rank columns"]) -> tuple[Int8[Tensor, "rank columns"], Float[Tensor, " rank"]]:
    """Symmetric int8, one fp16 scale a row; rows so small that their scale would vanish in fp16 become zero."""
    scales = (rows.abs().amax(1) / 127).to(torch.float16)
    divisor = torch.where(scales > 0, scales, math.inf).float()[:, None]
    return (rows / divisor).round().clamp(-127, 127).to(torch.int8), scales
