"""Reading a ``.lidb`` file, without torch: what it says about itself, its numbers, and whether it fits.

``lidb_weights`` makes these files, and turns what is read here into tensors. The format is in docs/lidb-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped
from pydantic import TypeAdapter

from core.errors import WeightsFormat, WeightsMismatch

FORMAT, VERSION = "hyperdreambooth.lidb", 1
LARGEST = 64 * 2**20
"""Bytes; a larger file is refused unread."""

Precision = Literal["int8", "fp16", "fp32"]
_TYPES: Mapping[str, np.dtype[Any]] = {"I8": np.dtype("i1"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_VALUES: Mapping[Precision, str] = {"int8": "I8", "fp16": "F16", "fp32": "F32"}
_LONGEST_HEADER = 2**20
_DAMAGED = "the file is damaged: upload or download it again"
_OTHER_CONTENT = "the file does not hold what its description says: make the weights again"


@dataclass(frozen=True)
class WeightsMetadata:
    """What a file says about itself. ``prompt`` is the trigger; ``kind`` "lidb": the factors are in the basis."""

    bundle: str
    fingerprint: str
    targets: str
    layers: int
    basis: str
    basis_seed: int
    preset: str
    rank: int
    kind: Literal["lidb"]
    precision: Precision
    class_noun: str
    identifier: str
    prompt: str
    kept_step: int
    format: str = FORMAT
    version: int = VERSION


_METADATA = TypeAdapter(WeightsMetadata)


@dataclass(frozen=True, eq=False)
class LidbFile:
    """The numbers as they are stored: int8, fp16 or fp32 values, and the scales of int8 ones in fp16."""

    metadata: WeightsMetadata
    values: Shaped[np.ndarray, " values"]
    scales: Shaped[np.ndarray, " scales"]


def read(data: bytes) -> LidbFile:
    """Open a file. ``check_pins`` checks whether it fits a base model.

    Raises:
        WeightsFormat: not a .lidb file, another version, damaged, too large, or with numbers that are not finite.
    """
    if len(data) > LARGEST:
        raise WeightsFormat(f"the file has {len(data):,} bytes; a .lidb file has at most {LARGEST:,}")
    header = _header(data)
    metadata = _metadata(header)
    values, scales = _tensors(header, data, _VALUES[metadata.precision])
    check_finite(values)
    check_finite(scales)
    return LidbFile(metadata, values, scales)


def check_pins(metadata: WeightsMetadata, pins: Mapping[str, Any]) -> None:
    """Compare with a base model: ``pins`` are the metadata's fields that must be equal. Raises WeightsMismatch."""
    for name, value in pins.items():
        found = getattr(metadata, name)
        if found != value:
            raise WeightsMismatch(
                f"the weights are of bundle {metadata.bundle!r}, {name} {found!r}, and the service runs "
                f"{pins['bundle']!r}, {name} {value!r}: personalize the photo again with this bundle"
            )


def split(
    file: LidbFile, shapes: Iterable[tuple[int, int]]
) -> list[tuple[Float32[np.ndarray, "rank left"], Float32[np.ndarray, "rank right"]]]:
    """The rows of each layer's factors, left (transposed) and right; ``shapes`` are their lengths, in file order.

    Raises:
        WeightsFormat: the numbers are too few, too many, or not finite.
    """
    widths, rank = [width for pair in shapes for width in pair], file.metadata.rank
    ends = np.cumsum(widths)[:-1] * rank
    matrices = [each.reshape(rank, -1) for each in np.split(numbers(file, widths), ends)]
    return list(zip(matrices[0::2], matrices[1::2], strict=True))


def numbers(file: LidbFile, widths: Sequence[int]) -> Float32[np.ndarray, " values"]:
    """The numbers of all factors in file order: ``rank`` rows of each width. Raises WeightsFormat like ``split``."""
    metadata = file.metadata
    count = sum(widths) * metadata.rank
    scales = metadata.rank * len(widths) if metadata.precision == "int8" else 0
    if len(file.values) != count or len(file.scales) != scales:
        raise WeightsFormat(f"the file has {len(file.values)} numbers where {count} belong: make the weights again")
    check_finite(file.values)
    check_finite(file.scales)
    found = file.values.astype(np.float32)
    if scales:
        found *= np.repeat(file.scales.astype(np.float32), np.repeat(widths, metadata.rank))
    return found


def check_finite(numbers: Shaped[np.ndarray, " numbers"]) -> None:
    """Raises WeightsFormat for infinities and NaN."""
    if numbers.dtype.kind == "f" and not bool(np.isfinite(numbers).all()):
        raise WeightsFormat("the weights are not finite numbers: make them again")


def _header(data: bytes) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8 : 8 + min(length, _LONGEST_HEADER)])
        described: dict[str, Any] = json.loads(header["__metadata__"]["lidb"])
        found = f"{described['format']} version {described['version']}"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsFormat("not a .lidb file: it is not safetensors with a lidb description") from error
    if (described["format"], described["version"]) != (FORMAT, VERSION):
        raise WeightsFormat(f"this is {found}; this release opens {FORMAT} version {VERSION}: make the weights again")
    if set(described) != {field.name for field in fields(WeightsMetadata)}:
        raise WeightsFormat("the description of the weights lacks fields or has unknown ones")
    return header


def _metadata(header: dict[str, Any]) -> WeightsMetadata:
    try:
        metadata = _METADATA.validate_json(header["__metadata__"]["lidb"], strict=True)
    except ValueError as error:
        raise WeightsFormat("the description of the weights has a field of the wrong kind: make them again") from error
    if metadata.rank < 1:
        raise WeightsFormat("the description of the weights has no rank")
    return metadata


def _tensors(
    header: dict[str, Any], data: bytes, values: str
) -> tuple[Shaped[np.ndarray, " values"], Shaped[np.ndarray, " scales"]]:
    """The tensors ``values`` and ``scales``; raises WeightsFormat when the file holds anything else."""
    body = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    expected = {"values": values, "scales": "F16"}
    try:
        said = {
            name: (entry["dtype"], entry["shape"], entry["data_offsets"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
        if set(said) != set(expected) or any(said[name][0] != kind for name, kind in expected.items()):
            raise WeightsFormat(_OTHER_CONTENT)
        found = {name: _tensor(body, *entry) for name, entry in said.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsFormat(_DAMAGED) from error
    if sum(tensor.nbytes for tensor in found.values()) != len(body):
        raise WeightsFormat(_DAMAGED)
    return found["values"], found["scales"]


def _tensor(body: memoryview, kind: str, shape: Any, offsets: Any) -> Shaped[np.ndarray, " numbers"]:
    """One flat tensor, as the header describes it. Raises TypeError or ValueError when it does not describe one."""
    (count,), (begin, end) = shape, offsets
    if any(type(number) is not int for number in (count, begin, end)):
        raise ValueError("sizes and places are whole numbers")
    if not 0 <= begin <= end <= len(body) or end - begin != count * _TYPES[kind].itemsize:
        raise ValueError("the offsets are not those of the shape")
    return np.frombuffer(body[begin:end], dtype=_TYPES[kind])
