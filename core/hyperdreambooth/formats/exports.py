"""Weights for other programs: a .lidb multiplied out of its basis, as the LoRA files that they open. Without torch.

    dW = up down (alpha / rank)        up: n x r, down: r x m, alpha = rank

``peft``   diffusers' ``load_lora_weights``: ``unet.<layer>.lora_A.weight`` (down) and ``lora_B`` (up). There are no
           ``.alpha`` keys: diffusers refuses them beside these names, and takes alpha = rank.
``kohya``  A1111, ComfyUI and diffusers: ``lora_unet_<layer>.lora_down.weight``, ``lora_up.weight`` and ``alpha``, with
           underscores for the dots of the layer's name.

A convolution's are ``r x channels x kernel x kernel`` and ``n x r x 1 x 1`` (what A1111's world calls LoCon).

Both are safetensors, need nothing of this project to be opened, and change the same layers by the same amount as the
.lidb does. What the metadata says, and how to use the files, is in docs/weights.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32
from pydantic import TypeAdapter

from core.hyperdreambooth.formats import lidb_file
from core.hyperdreambooth.formats.lidb_file import LidbFile, WeightsMetadata
from core.hyperdreambooth.model.basis import multiply_out
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.target import Target

ExportFormat = Literal["peft", "kohya"]
ExportPrecision = Literal["fp16", "fp32"]

_TYPES: dict[ExportPrecision, np.dtype[Any]] = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
_NAMES = {"<f2": "F16", "<f4": "F32"}
_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te"}
_KOHYA_OF_TWO = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
"""SDXL's two text encoders have numbers."""

_BASE_VERSIONS = {
    768: ("sd_v1", "stable-diffusion-v1"),
    1024: ("sd_v2", "stable-diffusion-v2"),
    2048: ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}
"""Width of the text embeddings -> the family of base models, in the words of the ``ss_`` keys and of ModelSpec."""


@dataclass(frozen=True)
class Layout:
    """What an export needs to know of a bundle, without opening it.

    ``pins`` are fields that the metadata of a fitting .lidb file has as well.
    """

    pins: dict[str, str | int]
    lidb: LidbConfig
    layers: tuple[Target, ...]
    resolution: int
    text_width: int

    def to_json(self) -> bytes:
        """The JSON that is kept in the store."""
        return _LAYOUT.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> Layout:
        """Read what ``to_json`` wrote."""
        layout: Layout = _LAYOUT.validate_json(text)
        return layout


_LAYOUT: TypeAdapter[Any] = TypeAdapter(Layout)


@dataclass(frozen=True, eq=False)
class Pair:
    """The change of one layer as a matrix: ``up down``."""

    up: Float32[np.ndarray, "n rank"]
    down: Float32[np.ndarray, "rank m"]


def export(file: LidbFile, layout: Layout, file_format: ExportFormat, *, precision: ExportPrecision = "fp16") -> bytes:
    """The file for other programs. The same weights give the same bytes.

    Raises:
        WeightsMismatch: the weights were made for another base model, basis or list of targets.
        WeightsFormat: the numbers are too few, too many, or not finite.
    """
    two = any(layer.name.startswith("text_encoder_2.") for layer in layout.layers)
    name_of = _peft if file_format == "peft" else partial(_kohya, _KOHYA_OF_TWO if two else _KOHYA)
    kind = _TYPES[precision]
    tensors: dict[str, Float[np.ndarray, ...]] = {}
    for layer, pair in pairs(file, layout):
        even = balanced(pair)
        for part, matrix in (("down", even.down), ("up", even.up)):
            tensors[name_of(layer.name, part)] = _shaped(matrix, part, layer.kernel).astype(kind)
        if file_format == "kohya":
            tensors[name_of(layer.name, "alpha")] = np.array(file.metadata.rank, dtype=kind)
    return _safetensors(tensors, _describe(file.metadata, layout, file_format))


def pairs(file: LidbFile, layout: Layout) -> Iterator[tuple[Target, Pair]]:
    """Each layer's change in file order, multiplied out of the basis. Raises like ``export``."""
    lidb_file.check_pins(file.metadata, layout.pins)
    shapes = [layer.capped(layout.lidb.a, layout.lidb.b) for layer in layout.layers]
    for layer, (left, right) in zip(layout.layers, lidb_file.split(file, shapes), strict=True):
        yield layer, Pair(*multiply_out(layer, layout.lidb, left.T, right))


def balanced(pair: Pair) -> Pair:
    """The same change, both factors of each component equally long: neither vanishes nor overflows in fp16."""
    up, down = np.linalg.norm(pair.up, axis=0), np.linalg.norm(pair.down, axis=1)
    scale = np.ones_like(up)
    np.sqrt(np.divide(down, up, out=scale, where=(up > 0) & (down > 0)), out=scale)
    return Pair(pair.up * scale, pair.down / scale[:, None])


def _shaped(
    matrix: Float[np.ndarray, "rows columns"], part: str, kernel: int | None
) -> Float[np.ndarray, "rows _ *side_side"]:
    """A factor as the layer has it: of a convolution, "down" is one of the same kernel and "up" one of a single place.

    Other programs read these from their shapes.
    """
    if kernel is None:
        return matrix
    side = kernel if part == "down" else 1
    return matrix.reshape(len(matrix), -1, side, side)


def _peft(target: str, part: str) -> str:
    """A key of diffusers. Older text encoders have ``text_model.`` before their layers; newer ones take it as well."""
    component, path = _split(target)
    return f"{component}.{path}.lora_{'A' if part == 'down' else 'B'}.weight"


def _kohya(prefixes: dict[str, str], target: str, part: str) -> str:
    component, path = _split(target)
    module = f"{prefixes[component]}_{path.replace('.', '_')}"
    return f"{module}.alpha" if part == "alpha" else f"{module}.lora_{part}.weight"


def _split(target: str) -> tuple[str, str]:
    component, _, path = target.partition(".")
    if component.startswith("text_encoder") and not path.startswith("text_model."):
        path = f"text_model.{path}"
    return component, path


def _describe(metadata: WeightsMetadata, layout: Layout, file_format: ExportFormat) -> dict[str, str]:
    """The file's metadata: for this project, for readers of ModelSpec, and for A1111."""
    version, architecture = _BASE_VERSIONS.get(layout.text_width, ("", ""))
    side = layout.resolution
    described: dict[str, Any] = {
        "format": "pt",
        "hyperdreambooth.base": metadata.bundle,
        "hyperdreambooth.fingerprint": metadata.fingerprint,
        "hyperdreambooth.rank": metadata.rank,
        "hyperdreambooth.trigger": metadata.identifier,
        "hyperdreambooth.prompt": metadata.prompt,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.trigger_phrase": metadata.prompt,
        "modelspec.resolution": f"{side}x{side}",
    }
    if version:
        described["modelspec.architecture"] = f"{architecture}/lora"
    if file_format == "kohya":
        described |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": metadata.rank,
            "ss_network_alpha": metadata.rank,
            "ss_sd_model_name": metadata.bundle,
            "ss_resolution": f"({side}, {side})",
            "ss_tag_frequency": json.dumps({metadata.class_noun: {metadata.prompt: 1}}),
            "ss_v2": version == "sd_v2",
        }
        if version:
            described["ss_base_model_version"] = version
    return {key: str(value) for key, value in described.items()}


def _safetensors(tensors: dict[str, Float[np.ndarray, ...]], metadata: dict[str, str]) -> bytes:
    """The file: the length of its header, the header (sorted, padded to 8 bytes), the numbers one after the other."""
    header: dict[str, Any] = {"__metadata__": metadata}
    pieces, place = [], 0
    for name, tensor in sorted(tensors.items()):
        piece = tensor.tobytes()
        kind = _NAMES[tensor.dtype.str]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [place, place + len(piece)]}
        pieces.append(piece)
        place += len(piece)
    body = b"".join(pieces)
    if "ss_network_dim" in metadata:
        metadata["sshs_model_hash"] = hashlib.sha256(body).hexdigest()
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body
