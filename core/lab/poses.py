"""Where heads are turned and whether they smile, and whether there is a face at all.

The face is found by the detector; the rest is read by the layers of ``photo_words``. CenterFace's five landmarks have
yaw as well (.98), but at 128 pixels they have pitch with .69 and 70 % of smiles only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from core.hyperdreambooth.faces.detection import face_in_frame
from core.hyperdreambooth.faces.dlib_recogniser import load_dlib_recogniser
from core.hyperdreambooth.faces.photo_words import load_photo_words


@dataclass(frozen=True, eq=False)
class Poses:
    """Of each picture the detector's score, 0 without a face, and what is NaN without one.

    ``yaw`` and ``pitch`` are in degrees (left in the picture and up are negative); ``smile`` is 0.5 and more with one.
    """

    score: Float[np.ndarray, " n"]
    yaw: Float[np.ndarray, " n"]
    pitch: Float[np.ndarray, " n"]
    smile: Float[np.ndarray, " n"]

    @property
    def found(self) -> Bool[np.ndarray, " n"]:
        """Where there is a face: a garbled one is none."""
        return self.score > 0


def find_poses(pictures: UInt8[np.ndarray, "n side side 3"]) -> Poses:
    """The faces of aligned pictures. Raises SettingsError when the detector is not installed."""
    numbers = np.array([_of_picture(Image.fromarray(picture)) for picture in pictures], dtype=np.float64)
    return Poses(*numbers.reshape(-1, 4).T)


def _of_picture(picture: Image.Image) -> tuple[float, ...]:
    face = face_in_frame(picture)
    if face is None:
        return 0.0, *[float("nan")] * 3
    read = load_photo_words().scores(load_dlib_recogniser()(picture))
    return face.score, read["yaw"], read["pitch"], 0.5 + read["smiling"] / 2
