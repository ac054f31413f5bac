"""Safetensors files read with numpy alone: the API checks photos and has neither torch nor its readers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BundleError

Tensor = np.ndarray[Any, np.dtype[np.float32]]

_KINDS: dict[str, str] = {"F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True, eq=False)
class TensorFile:
    """The tensors of a file by name, as float32, and its metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_tensor_file(path: Path) -> TensorFile:
    """A safetensors file of float16 and float32 tensors.

    Raises:
        BundleError: the file is missing, cut short, or holds numbers of another kind.
    """
    try:
        data = memoryview(path.read_bytes())
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:begin]))
        metadata = header.pop("__metadata__", {})
        tensors = {name: _tensor(data[begin:], entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} cannot be read as a safetensors file: {error}") from error
    return TensorFile(tensors, metadata)


def _tensor(data: memoryview, entry: dict[str, Any]) -> Tensor:
    first, last = entry["data_offsets"]
    flat = np.frombuffer(data[first:last], dtype=np.dtype(_KINDS[entry["dtype"]]))
    tensor: Tensor = flat.reshape(entry["shape"]).astype(np.float32)
    return tensor
