"""The ``.lidb`` file: one subject's weights, self-describing, checked when opened. See docs/lidb-format.md.

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
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.formats.lidb_file import LidbFile, Precision, WeightsMetadata
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import Factors, LayerFactors

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
    """One subject's factors. Int8 values have ``scales``, one for each column of ``A`` and each row of ``B``."""

    metadata: WeightsMetadata
    values: Int8[Tensor, " values"] | Float[Tensor, " values"]
    scales: Float[Tensor, " scales"]


def describe(
    bundle: Bundle,
    factors: LayerFactors,
    *,
    class_noun: str,
    kept_step: int,
    precision: Precision = "int8",
) -> LidbWeights:
    """Pack factors in the basis of ``bundle``, without a batch dimension."""
    rank = next(iter(factors.values())).left.shape[-1]
    values, scales = [], []
    for target in bundle.targets:
        pair = factors[target.name]
        for matrix in (pair.left.mT, pair.right):
            rows = matrix.detach().to("cpu", torch.float32)
            if precision == "int8":
                rows, scale = _quantise(rows)
                scales.append(scale)
            values.append(rows.flatten() if precision == "int8" else rows.flatten().to(_FLOATS[precision]))
    metadata = WeightsMetadata(
        **_pins(bundle),
        rank=rank,
        kind="lidb",
        precision=precision,
        class_noun=class_noun,
        identifier=bundle.identifier,
        prompt=f"a {bundle.identifier} {class_noun}",
        kept_step=kept_step,
    )
    return LidbWeights(
        metadata, torch.cat(values), torch.cat(scales) if scales else torch.empty(0, dtype=torch.float16)
    )


def merged_factors(weights: LidbWeights, bundle: Bundle) -> LayerFactors:
    """The factors multiplied with the basis, as adapters take them, on the bundle's device.

    Raises:
        WeightsMismatch: the weights were made for another base model, basis or list of targets.
        WeightsFormat: the numbers are too few, too many, or not finite.
    """
    return bundle.basis.merge(unpack(weights, bundle))


def unpack(weights: LidbWeights, bundle: Bundle) -> dict[str, Factors]:
    """The factors of every target in the basis, as float32 on the bundle's device. Raises like ``merged_factors``."""
    lidb_file.check_pins(weights.metadata, _pins(bundle))
    file = LidbFile(weights.metadata, weights.values.numpy(), weights.scales.numpy())
    widths, rank = [width for pair in bundle.shapes.values() for width in pair], weights.metadata.rank
    numbers = torch.from_numpy(lidb_file.numbers(file, widths)).to(bundle.device)
    rows = [each.view(rank, -1) for each in numbers.split([rank * width for width in widths])]
    pairs = zip(rows[0::2], rows[1::2], strict=True)
    return {target.name: Factors(left.mT, right) for target, (left, right) in zip(bundle.targets, pairs, strict=True)}


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
    width = int(bundle.unet.config.cross_attention_dim)
    return Layout(
        layers=bundle.targets,
        lidb=bundle.config.lidb,
        resolution=bundle.resolution,
        text_width=width,
        pins=_pins(bundle),
    )


def sha256(data: bytes) -> str:
    """The hash that identifies a file, in hex."""
    return hashlib.sha256(data).hexdigest()


def _pins(bundle: Bundle) -> dict[str, Any]:
    return {
        "bundle": bundle.name,
        "fingerprint": bundle.fingerprint,
        "targets": bundle.targets_hash,
        "layers": len(bundle.targets),
        "basis": bundle.basis.hash,
        "basis_seed": bundle.config.lidb.seed,
        "preset": bundle.config.lidb.preset,
    }


def _quantise(rows: Float[Tensor, "rank columns"]) -> tuple[Int8[Tensor, "rank columns"], Float[Tensor, " rank"]]:
    """Symmetric int8, one fp16 scale a row; rows so small that their scale would vanish in fp16 become zero."""
    scales = (rows.abs().amax(1) / 127).to(torch.float16)
    divisor = torch.where(scales > 0, scales, math.inf).float()[:, None]
    return (rows / divisor).round().clamp(-127, 127).to(torch.int8), scales
