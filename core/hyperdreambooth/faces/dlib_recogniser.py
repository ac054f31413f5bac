"""dlib's face recognition network (King 2017, CC0) in numpy: who a photo shows, where there is no torch.

The file's metadata lists what the network does, step by step, with the names of the tensors. Two photos show the same
person when their embeddings are near each other. The card in its folder says what was measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from core.errors import BundleError
from core.hyperdreambooth.faces.tensor_file import Tensor, TensorFile, read_tensor_file

FOLDER = Path(__file__).parents[2] / "bundles" / "dlib-face-resnet"
"""The network that ships."""

SAME = 0.57
"""Euclidean distance up to which two embeddings are of one person: one pair of strangers in 1,000 is nearer."""

DIFFERENT = 0.66
"""Distance beyond which they are of two: seven pairs of one person in 1,000 are farther. Between both it is unsure."""

CROP = (0.156, 0.259, 0.844, 0.947)
"""Left, top, right and bottom of what the network is given, as fractions of an aligned picture."""

SIDE = 150
"""Pixels of the network's input."""

_FEATURES = "w39"
"""The features are what this convolution takes in: 8 x 8 places in which eyes, nose and mouth lie apart."""

Map = Float[np.ndarray, "h w c"]


@dataclass(frozen=True, eq=False)
class Appearance:
    """Who is seen (``embedding``, compared by `distance`) and how: ``features`` of 8 x 8 places of the face."""

    embedding: Float[np.ndarray, " 128"]
    features: Float[np.ndarray, "8 8 128"]


class DlibRecogniser:
    """The network; threads may share it."""

    def __init__(self, file: TensorFile) -> None:
        """Takes the file's tensors. Raises BundleError when it is the file of another network."""
        try:
            self._mean = file.tensors["mean"]
            self._steps = [_step(operation, file.tensors) for operation in json.loads(file.metadata["ops"])]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"this is not dlib's face recognition network: {error!r}") from error

    def __call__(self, aligned: Image.Image) -> Appearance:
        """The appearance of a face in FFHQ's framing, a square RGB picture of any size. Takes 45 ms of one core."""
        pixels = np.asarray(_cut_out(aligned), dtype=np.float32)
        return self.run((pixels - self._mean) / np.float32(256))

    def run(self, here: Map) -> Appearance:
        """The network on its input: 150 x 150 RGB, the mean taken away, divided by 256."""
        tags: dict[str, Map] = {}
        features = here
        for step in self._steps:
            if step.name == _FEATURES:
                features = here
            match step.kind:
                case "tag":
                    tags[step.name] = here
                case "skip":
                    here = tags[step.name]
                case "add":
                    here = _add(here, tags[step.name])
                case _:
                    here = step(here)
        return Appearance(here, features)


def distance(one: Appearance, other: Appearance) -> float:
    """Between two embeddings: 0.46 on average for photos of one person, 0.86 for photos of two."""
    return float(np.linalg.norm(one.embedding - other.embedding))


@cache
def load_dlib_recogniser(folder: Path = FOLDER) -> DlibRecogniser:
    """The network in a folder, read once for each process: 22 MB. Raises BundleError when it cannot be read."""
    return DlibRecogniser(read_tensor_file(folder / "model.safetensors"))


@dataclass(frozen=True, eq=False)
class _Step:
    """One operation: its kind, the name of its first tensor or of its tag, its tensors and its numbers."""

    kind: str
    name: str
    tensors: tuple[Tensor, ...]
    numbers: tuple[int, ...]

    def __call__(self, here: Any) -> Any:
        match self.kind:
            case "con":
                weight, bias = self.tensors
                stride, padding = self.numbers
                return _convolve(here, weight, bias, stride, padding)
            case "affine":
                return here * self.tensors[0] + self.tensors[1]
            case "relu":
                return np.maximum(here, 0)
            case "max_pool":
                return _windows(here, *self.numbers[:2]).max((-2, -1))
            case "avg_pool":
                return here.mean((0, 1)) if self.numbers[0] == 0 else _windows(here, *self.numbers[:2]).mean((-2, -1))
            case _:
                return here @ self.tensors[0]


def _step(operation: list[Any], tensors: dict[str, Tensor]) -> _Step:
    kind, *rest = operation
    if kind not in ("con", "affine", "relu", "max_pool", "avg_pool", "tag", "skip", "add", "fc"):
        raise ValueError(f"an unknown operation, {kind}")
    names = [name for name in rest if isinstance(name, str)]
    found = [] if kind in ("tag", "skip", "add") else [tensors[name] for name in names]
    if kind == "con":  # [out, in, height, width] -> [height, width, in, out]
        found[0] = np.ascontiguousarray(found[0].transpose(2, 3, 1, 0))
    if kind == "affine":
        found = [tensor.reshape(-1) for tensor in found]
    return _Step(kind, names[0] if names else "", tuple(found), tuple(n for n in rest if isinstance(n, int)))


def _cut_out(aligned: Image.Image) -> Image.Image:
    left, top, right, bottom = (part * aligned.width for part in CROP)
    return aligned.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _convolve(
    here: Map, weight: Float[np.ndarray, "k k c c2"], bias: Float[np.ndarray, " c2"], stride: int, padding: int
) -> Float[np.ndarray, "h2 w2 c2"]:
    """One matrix product for each place of the kernel: a copy of the picture at a time instead of k x k."""
    if padding:
        here = np.pad(here, ((padding, padding), (padding, padding), (0, 0)))
    high, wide = ((side - weight.shape[0]) // stride + 1 for side in here.shape[:2])
    out = np.tile(bias, (high * wide, 1))
    for y, x in np.ndindex(weight.shape[:2]):
        seen = here[y : y + stride * high : stride, x : x + stride * wide : stride]
        out += seen.reshape(high * wide, -1) @ weight[y, x]
    return out.reshape(high, wide, -1)


def _windows(here: Map, size: int, stride: int) -> Float[np.ndarray, "h2 w2 c size size"]:
    return sliding_window_view(here, (size, size), axis=(0, 1))[::stride, ::stride]


def _add(one: Map, other: Float[np.ndarray, "h2 w2 c2"]) -> Float[np.ndarray, "h3 w3 c3"]:
    """The sum; where one is smaller it counts as zero."""
    out = np.zeros(np.maximum(one.shape, other.shape), np.float32)
    for part in (one, other):
        high, wide, deep = part.shape
        out[:high, :wide, :deep] += part
    return out
