"""Whether a photo shows one face that is good enough to personalize with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.errors import (
    FaceTooBlurred,
    FaceTooBright,
    FaceTooDark,
    FaceTooSmall,
    FaceTurnedAway,
    NoFace,
    SeveralFaces,
)
from core.hyperdreambooth.faces.alignment import Face
from core.hyperdreambooth.faces.detection import find_faces

MIN_PICTURE = 32
"""Pixels of the shorter side below which no face is searched for."""

MIN_EYE_DISTANCE = 12.0
"""Pixels: a face framed at 48 pixels, where a recogniser begins to lose the person."""

MIN_SHARPNESS = 0.17
"""Between photos of 48 pixels and of 32 pixels, both scaled up: see `sharpness`."""

MAX_TURN = 0.42
"""Of the eye distance, see `turn`: three quarters of a profile. One photo of celebrities in 300 is beyond it."""

MIN_BRIGHTNESS = 32.0
"""Of 255, the mean over the middle of the face. The darkest of 2,115 photos has 39, one in a hundred has 69."""

MAX_BLOWN_OUT = 0.45
"""The share of the middle of the face that is white. The most of these photos is 0.36; one in 100 has 0.08."""

_SIZE = 64  # pixels of the aligned face that is measured
_WHITE = 250


def find_face(image: Image.Image) -> Face:
    """The one face of a photo that is good enough to personalize with. EXIF orientation must have been applied.

    Raises:
        NoFace: there is none.
        SeveralFaces: there is more than one, not counting bystanders.
        FaceTooSmall: too few pixels between the eyes.
        FaceTurnedAway: seen from the side.
        FaceTooDark, FaceTooBright: the light hides it.
        FaceTooBlurred: too little detail.
        SettingsError: the detector is not installed.
    """
    if image.mode != "RGB":  # a copy of a large photo takes 100 MB
        image = image.convert("RGB")
    if min(image.size) < MIN_PICTURE:
        raise FaceTooSmall(f"The picture is {image.width} x {image.height} pixels: send one of at least 64 x 64.")
    faces = find_faces(image)
    if not faces:
        raise NoFace("No face was found: send a photo that shows one face from the front, upright and well lit.")
    if len(faces) > 1:
        raise SeveralFaces(f"{len(faces)} faces were found: crop the photo to one person.", count=len(faces))
    check_quality(faces[0])
    return faces[0]


def check_quality(face: Face) -> None:
    """Raises one of the errors of ``find_face`` for a face that is too small, turned away, badly lit or blurred."""
    if face.eye_distance < MIN_EYE_DISTANCE:
        raise FaceTooSmall(
            f"The eyes are {face.eye_distance:.0f} pixels apart, at least {MIN_EYE_DISTANCE:.0f} are needed and 60 are "
            "better: send a larger picture, or one taken from nearer."
        )
    if abs(turn(face)) > MAX_TURN:
        raise FaceTurnedAway("The face is seen from the side: send a photo in which it looks towards the camera.")
    if brightness(face) < MIN_BRIGHTNESS:
        raise FaceTooDark("The face is in the dark: send a photo taken in daylight, with the light on the face.")
    if blown_out(face) > MAX_BLOWN_OUT:
        raise FaceTooBright("Much of the face is nothing but white: send a photo without flash or direct sun on it.")
    if sharpness(face) < MIN_SHARPNESS:
        raise FaceTooBlurred("The face is out of focus, moved or scaled up: send a sharper photo.")


def turn(face: Face) -> float:
    """How far the nose is from the midline of the eyes, in their distance: 0 is frontal, +-0.5 is under an eye."""
    right, left, nose = face.landmarks[:3]
    across = left - right
    return float((nose - (right + left) / 2) @ across / (across @ across))


def sharpness(face: Face) -> float:
    """The share of fine detail: variance of the Laplacian at 64 pixels by that at 32, over the middle of the face.

    A ratio, because a smooth face has little detail at either size. Medians: 0.50 for sharp photos, 0.37 for those
    of 64 pixels, 0.25 and 0.15 for those of 48 and 32 pixels scaled up; 0.1 is what is blurred beyond use.
    """
    grey = face.aligned(_SIZE).convert("L")
    return _laplacian_variance(grey) / max(_laplacian_variance(grey.reduce(2)), 1e-6)


def brightness(face: Face) -> float:
    """The mean over the middle of the face, of 255."""
    return float(_middle(face.aligned(_SIZE).convert("L")).mean())


def blown_out(face: Face) -> float:
    """The share of the middle of the face that is as good as white, where nothing can be seen."""
    return float((_middle(face.aligned(_SIZE).convert("L")) >= _WHITE).mean())


def _laplacian_variance(grey: Image.Image) -> float:
    """Over the middle of an aligned picture."""
    pixels = _middle(grey)
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((4 * pixels[1:-1, 1:-1] - around).var())


def _middle(grey: Image.Image) -> Float[np.ndarray, "h w"]:
    """The middle of an aligned picture: from above the eyes to the chin, without hair and background."""
    size = grey.width
    return np.asarray(grey, dtype=np.float64)[int(0.30 * size) : int(0.85 * size), int(0.2 * size) : int(0.8 * size)]
