"""Any ONNX face recogniser by its path, for evaluations and for operators who bring their own.

It measures only; nothing is trained against it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.faces.alignment import FRAME, similarity
from core.hyperdreambooth.faces.onnx_runtime import onnxruntime

TEMPLATE = np.array([(30.29, 51.70), (65.53, 51.50), (48.03, 71.74), (33.55, 92.37), (62.73, 92.20)])
"""The landmarks of ``alignment.FRAME`` in the 96 x 112 (width x height) input of an ArcFace-type recogniser."""

_HIGH, _WIDE = 112, 96
_ERRORS = onnxruntime.capi.onnxruntime_pybind11_state
_UNREADABLE = (
    _ERRORS.Fail,
    _ERRORS.InvalidArgument,
    _ERRORS.InvalidGraph,
    _ERRORS.InvalidProtobuf,
    _ERRORS.NotImplemented,
    _ERRORS.RuntimeException,
)
_SIDE = 128
_SIGNED = "?range=1"

Embeddings = Float[np.ndarray, "n embedding"]


class OnnxRecogniser:
    """An ONNX model with one input, float32 RGB ``[n, 3, height, width]``, whose first output is ``[n, embedding]``.

    Pictures are aligned as for ArcFace: its template (112 high and 96 or 112 wide), as much larger or smaller as the
    model's input is high. Pixels are 0..255; a path that ends in ``?range=1`` asks for -1..1, as insightface's and
    facenet's models want them.
    """

    def __init__(self, file: Path) -> None:
        """Opens the model. Raises SettingsError where there is none, or one of another kind."""
        self._signed = file.name.endswith(_SIGNED)
        file = path_of(file)
        if not file.is_file():
            raise SettingsError(f"there is no recogniser at {file}: give the path of an ONNX face recogniser")
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except _UNREADABLE as error:
            raise SettingsError(f"{file} cannot be opened as an ONNX model: {error}") from error
        inputs: dict[str, list[int | str | None]] = {each.name: each.shape for each in self._session.get_inputs()}
        self._name, shape = next(iter(inputs.items()), ("", []))
        sides = [side for side in shape[2:] if isinstance(side, int)]
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or len(sides) != 2:
            raise SettingsError(
                f"{file} is no recogniser: it needs one input [n, 3, height, width] of a fixed height and width, "
                f"and its inputs are {inputs}"
            )
        self._size = (sides[1], sides[0])

    def __call__(self, pictures: UInt8[np.ndarray, "n side side 3"], *, batch: int = 64) -> Embeddings:
        """Unit embeddings of aligned square pictures; they are brought to 128 pixels first."""
        inputs = np.stack([to_template(picture, self._size) for picture in pictures])
        inputs = inputs.astype(np.float32).transpose(0, 3, 1, 2)
        if self._signed:
            inputs = (inputs - 127.5) / 127.5
        parts = [
            self._session.run(None, {self._name: inputs[start : start + batch]})[0]
            for start in range(0, len(inputs), batch)
        ]
        embeddings = np.concatenate(parts)
        return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=1e-12))


def path_of(file: Path) -> Path:
    """The path of the file itself, without the ``?range=1`` that describes its pixels."""
    return file.with_name(file.name.removesuffix(_SIGNED))


def to_template(
    picture: UInt8[np.ndarray, "side side 3"], size: tuple[int, int] = (_WIDE, _HIGH)
) -> UInt8[np.ndarray, "height width 3"]:
    """One similarity transform from the framing to the recogniser's template, at its ``size`` (width and height)."""
    image = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image.transform(size, Image.Transform.AFFINE, _coefficients(size), Image.Resampling.BICUBIC))


@cache
def _coefficients(size: tuple[int, int]) -> tuple[float, ...]:
    """From the template back to the framing, as PIL wants it: the same for every picture."""
    return tuple(np.linalg.inv(similarity(FRAME * _SIDE, template(size)))[:2].flatten())


def template(size: tuple[int, int]) -> Float[np.ndarray, "landmarks 2"]:
    """``TEMPLATE`` in a picture of another ``size`` (width and height): scaled by the height, in the middle."""
    wide, high = size
    scale = high / _HIGH
    return (TEMPLATE - (_WIDE / 2, 0)) * scale + (wide / 2, 0)
