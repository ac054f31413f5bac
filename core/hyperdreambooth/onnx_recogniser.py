"""Any ONNX face recogniser by path, and the alignment it wants: the ruler of evaluations, an operator's own judge.

It measures only; nothing trains against it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
)
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotSupported
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.face import FRAME, similarity

TEMPLATE = np.array([(30.29, 51.70), (65.53, 51.50), (48.03, 71.74), (33.55, 92.37), (62.73, 92.20)])
"""The landmarks of ``face.FRAME`` in the 96 x 112 (width x height) input of an ArcFace-type recogniser."""

_UNREADABLE = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotSupported, RuntimeException)
_SIDE = 128
_COEFFICIENTS = tuple(np.linalg.inv(similarity(FRAME * _SIDE, TEMPLATE))[:2].flatten())

Embeddings = Float[np.ndarray, "n embedding"]


class OnnxRecogniser:
    """An ONNX model: input ``images`` float32 ``[n, 3, 112, 96]`` RGB in 0..255, output unit ``embeddings``."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise SettingsError(f"there is no recogniser at {file}: give the path of an ONNX face recogniser")
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except _UNREADABLE as error:
            raise SettingsError(f"{file} cannot be opened as an ONNX model: {error}") from error
        inputs = {each.name: each.shape[1:] for each in self._session.get_inputs()}
        if inputs.get("images") != [3, 112, 96]:
            raise SettingsError(f"{file} is no recogniser for 96 x 112 pictures: its inputs are {inputs}")

    def __call__(self, pictures: UInt8[np.ndarray, "n side side 3"], *, batch: int = 64) -> Embeddings:
        """Unit embeddings of aligned square pictures; they are brought to 128 pixels first."""
        inputs = np.stack([to_template(picture) for picture in pictures]).astype(np.float32).transpose(0, 3, 1, 2)
        parts = [
            self._session.run(None, {"images": inputs[start : start + batch]})[0]
            for start in range(0, len(inputs), batch)
        ]
        return np.concatenate(parts)


def to_template(picture: UInt8[np.ndarray, "side side 3"]) -> UInt8[np.ndarray, "112 96 3"]:
    """One similarity transform from the framing to the recogniser's template."""
    image = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image.transform((96, 112), Image.Transform.AFFINE, _COEFFICIENTS, Image.Resampling.BICUBIC))
