"""The ``.lidb`` file: one person's weights, self-describing, checked when opened. The format is in docs/lidb-format.md.

A file is safetensors (never pickle) with two flat tensors, ``values`` and ``scales``, and a JSON description. The
values are the factors of the targets in file order, left before right; the description pins bundle, basis and target
list by hash, so that names need not be stored and 192 targets at rank 4 stay under 120 KB in int8.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float, Int8
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from core.errors import WeightsFormat, WeightsMismatch
from core.hyperdreambooth.config import Relaxation
from core.hyperdreambooth.diffusion import Bundle, merged
from core.hyperdreambooth.lidb import Factors, Person

FORMAT, VERSION = "hyperdreambooth.lidb", 1
LARGEST = 64 * 2**20
"""Bytes; a file over that is refused unread (a full LoRA of rank 64 over SD 1.5 is below it)."""

Precision = Literal["int8", "fp16", "fp32"]
_FLOATS: dict[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class WeightsMetadata:
    """What a file says about itself. ``prompt`` is the trigger; ``kind`` "lora" means factors outside the basis."""

    bundle: str
    fingerprint: str
    targets: str
    layers: int
    basis: str
    basis_seed: int
    preset: str
    rank: int
    kind: Relaxation
    precision: Precision
    class_noun: str
    identifier: str
    prompt: str
    kept_step: int
    format: str = FORMAT
    version: int = VERSION


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
    _check(weights, bundle)
    person, values, scales = {}, weights.values, weights.scales
    for name, (left, right) in _shapes(weights.metadata, bundle):
        matrices = []
        for columns in (left, right):
            rank = weights.metadata.rank
            rows, values = values[: rank * columns].float().view(rank, columns), values[rank * columns :]
            if weights.metadata.precision == "int8":
                rows, scales = rows * scales[:rank, None].float(), scales[rank:]
            matrices.append(rows.to(bundle.device))
        person[name] = Factors(matrices[0].mT.contiguous(), matrices[1])
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
    if len(data) > LARGEST:
        raise WeightsFormat(f"the file has {len(data):,} bytes; a .lidb file has at most {LARGEST:,}")
    metadata = _read_metadata(data)
    try:
        tensors = load(data)
        values, scales = tensors.pop("values"), tensors.pop("scales")
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsFormat("the file is damaged: upload or download it again") from error
    expected = torch.int8 if metadata.precision == "int8" else _FLOATS[metadata.precision]
    if tensors or values.ndim != 1 or scales.ndim != 1 or (values.dtype, scales.dtype) != (expected, torch.float16):
        raise WeightsFormat("the file does not hold what its description says: make the weights again")
    weights = LidbWeights(metadata, values, scales)
    _check_finite(weights)
    return weights


def sha256(data: bytes) -> str:
    """The hash by which a file is known."""
    return hashlib.sha256(data).hexdigest()


def _read_metadata(data: bytes) -> WeightsMetadata:
    try:
        length = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8 : 8 + min(length, 2**20)])
        described: dict[str, Any] = json.loads(header["__metadata__"]["lidb"])
        found = f"{described['format']} version {described['version']}"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsFormat("not a .lidb file: it is not safetensors with a lidb description") from error
    if (described["format"], described["version"]) != (FORMAT, VERSION):
        raise WeightsFormat(f"this is {found}; this release opens {FORMAT} version {VERSION}: make the weights again")
    if set(described) != {field.name for field in fields(WeightsMetadata)}:
        raise WeightsFormat("the description of the weights lacks fields or has unknown ones")
    try:
        metadata = TypeAdapter(WeightsMetadata).validate_json(header["__metadata__"]["lidb"], strict=True)
    except ValueError as error:
        raise WeightsFormat("the description of the weights has a field of the wrong kind: make them again") from error
    if metadata.rank < 1:
        raise WeightsFormat("the description of the weights has no rank")
    return metadata


def _check(weights: LidbWeights, bundle: Bundle) -> None:
    for name, value in _pins(bundle).items():
        found = getattr(weights.metadata, name)
        if found != value:
            raise WeightsMismatch(
                f"the weights are of bundle {weights.metadata.bundle!r}, {name} {found!r}, and the service runs "
                f"{bundle.name!r}, {name} {value!r}: personalise the photo again with this bundle"
            )
    count = sum(left + right for _, (left, right) in _shapes(weights.metadata, bundle)) * weights.metadata.rank
    scales = 2 * weights.metadata.rank * len(bundle.targets) if weights.metadata.precision == "int8" else 0
    if len(weights.values) != count or len(weights.scales) != scales:
        raise WeightsFormat(f"the file has {len(weights.values)} numbers where {count} belong: make the weights again")
    _check_finite(weights)


def _check_finite(weights: LidbWeights) -> None:
    for tensor in (weights.values, weights.scales):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsFormat("the weights are not finite numbers: make them again")


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


def _shapes(metadata: WeightsMetadata, bundle: Bundle) -> Iterator[tuple[str, tuple[int, int]]]:
    lidb = bundle.config.lidb
    for target in bundle.targets:
        yield target.name, target.capped(lidb.a, lidb.b) if metadata.kind == "lidb" else (target.n, target.m)


def _quantise(rows: Float[Tensor, "rank columns"]) -> tuple[Int8[Tensor, "rank columns"], Float[Tensor, " rank"]]:
    """Symmetric int8, one fp16 scale a row; rows so small that their scale would vanish in fp16 become zero."""
    scales = (rows.abs().amax(1) / 127).to(torch.float16)
    divisor = torch.where(scales > 0, scales, math.inf).float()[:, None]
    return (rows / divisor).round().clamp(-127, 127).to(torch.int8), scales
