"""Find, align, crop and judge the one face of a photo.

Every picture is looked at twice. The first look finds faces anywhere, in a small copy of the picture. The second look
sees each of them alone, upright and at one size, together with its mirror image: it confirms the face and places the
landmarks (their distance from the right framing falls from 1.8 to 1.4 % of the frame). The frame is that of FFHQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

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
from core.hyperdreambooth.faces.centerface import Detection, detect

FRAME = np.array([(0.377, 0.467), (0.623, 0.467), (0.500, 0.623), (0.387, 0.713), (0.613, 0.713)])
"""Where the landmarks lie in an aligned picture, as fractions of its side: eyes, nose, mouth corners, image-left
first.
"""

MIN_SCORE = 0.5
"""Of the first look. Faces score 0.8 and more in 99 of 100 pictures; the loudest object seen scored 0.56, once."""

CONFIRM_SCORE = 0.3
"""Of the second look, whose scale does not suit every face: a wide open mouth costs half the score there."""

BYSTANDER = 0.5
"""A face smaller than this part of the largest one (in width, so: about twice as far away) is ignored."""

MIN_PICTURE = 32
"""Pixels of the shorter side below which nothing is looked for."""

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

_FIRST_LOOKS = ((320, 0.25), (640, 0.25))  # longest side in pixels, and the border around it as a part of that
_SECOND_LOOK, _MARGIN = 256, 0.25  # side in pixels, and the border around the frame as a part of the frame
_MOST = 12  # where counting stops: a crowd is refused like a dozen, in the same time
_JUDGED_SIZE = 64
_WHITE = 250

Border = Literal["edge", "reflect"]


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo: five landmarks and a box in pixels, the detector's score, sharpness and turn."""

    image: Image.Image = field(repr=False)
    landmarks: Float[np.ndarray, "5 2"]
    box: Float[np.ndarray, " 4"]
    score: float

    @property
    def size(self) -> float:
        """The side of a square as large as the box, in pixels."""
        return Detection(self.box, self.score, self.landmarks).size

    @property
    def eye_distance(self) -> float:
        """Pixels of the photo between the eyes, as if the face were frontal: from the frame that fits all landmarks."""
        transform = similarity(self.landmarks, FRAME)
        return float((FRAME[1, 0] - FRAME[0, 0]) / np.sqrt(np.linalg.det(transform)))

    @property
    def turn(self) -> float:
        """How far the nose is from the midline of the eyes, in their distance: 0 is frontal, +-0.5 is under an eye."""
        right, left, nose = self.landmarks[:3]
        across = left - right
        return float((nose - (right + left) / 2) @ across / (across @ across))

    @property
    def sharpness(self) -> float:
        """The share of fine detail: variance of the Laplacian at 64 pixels by that at 32, over the middle of the face.

        A ratio, because a smooth face has little detail at either size. Medians: 0.50 for sharp photos, 0.37 for those
        of 64 pixels, 0.25 and 0.15 for those of 48 and 32 pixels scaled up; 0.1 is what is blurred beyond use.
        """
        grey = self.aligned(_JUDGED_SIZE).convert("L")
        return _laplacian_variance(grey) / max(_laplacian_variance(grey.reduce(2)), 1e-6)

    @property
    def brightness(self) -> float:
        """The mean over the middle of the face, of 255."""
        return float(_middle(self.aligned(_JUDGED_SIZE).convert("L")).mean())

    @property
    def blown_out(self) -> float:
        """The share of the middle of the face that is as good as white, where nothing can be seen."""
        return float((_middle(self.aligned(_JUDGED_SIZE).convert("L")) >= _WHITE).mean())

    def aligned(self, size: int) -> Image.Image:
        """The face in FFHQ's framing, ``size`` x ``size`` pixels, upright, antialiased; beyond the photo it is
        mirrored.
        """
        return _warp(self.image, similarity(self.landmarks, FRAME * size), size, border="reflect")


def find_face(image: Image.Image) -> Face:
    """The one face of a photo that is good enough to personalise with. Orientation must have been applied.

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
    _judge(faces[0])
    return faces[0]


def find_faces(image: Image.Image) -> list[Face]:
    """Every face of an RGB photo that is not a bystander, largest first; however small, blurred or turned."""
    for side, border in _FIRST_LOOKS:
        faces = _once(_second_looks(image, _first_look(image, side, border)))
        if faces:
            return faces
    return []


def similarity(points: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    """The rotation, scale and shift that takes ``points`` closest to ``onto`` (least squares; Umeyama 1991)."""
    centre, onto_centre = points.mean(0), onto.mean(0)
    spread, onto_spread = points - centre, onto - onto_centre
    u, s, vt = np.linalg.svd(onto_spread.T @ spread)
    proper = np.array([1.0, np.sign(np.linalg.det(u @ vt))])  # a face is never mirrored
    rotation = (u * proper) @ vt
    transform = np.eye(3)
    transform[:2, :2] = rotation * (s @ proper / (spread**2).sum())
    transform[:2, 2] = onto_centre - transform[:2, :2] @ centre
    return transform


def _judge(face: Face) -> None:
    if face.eye_distance < MIN_EYE_DISTANCE:
        raise FaceTooSmall(
            f"The eyes are {face.eye_distance:.0f} pixels apart, at least {MIN_EYE_DISTANCE:.0f} are needed and 60 are "
            "better: send a larger picture, or one taken from nearer."
        )
    if abs(face.turn) > MAX_TURN:
        raise FaceTurnedAway("The face is seen from the side: send a photo in which it looks towards the camera.")
    if face.brightness < MIN_BRIGHTNESS:
        raise FaceTooDark("The face is in the dark: send a photo taken in daylight, with the light on the face.")
    if face.blown_out > MAX_BLOWN_OUT:
        raise FaceTooBright("Much of the face is nothing but white: send a photo without flash or direct sun on it.")
    if face.sharpness < MIN_SHARPNESS:
        raise FaceTooBlurred("The face is out of focus, moved or scaled up: send a sharper photo.")


def _first_look(image: Image.Image, side: int, border: float) -> list[Detection]:
    """Faces in a copy of ``side`` pixels with a border, so that a face that fills the picture has a surrounding."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    edge = round(side * border)
    padded = np.pad(np.asarray(small), ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    found = detect(Image.fromarray(padded), threshold=MIN_SCORE)
    return [Detection((d.box - edge) / scale, d.score, (d.landmarks - edge) / scale) for d in found]


def _second_looks(image: Image.Image, candidates: list[Detection]) -> Iterator[Face]:
    """The candidates that are still a face when seen alone, largest first, down to bystanders."""
    largest = 0.0
    for candidate in sorted(candidates, key=lambda candidate: -candidate.size)[:_MOST]:
        if candidate.size < BYSTANDER * largest:
            return
        face = _second_look(image, candidate)
        if face is not None:
            largest = max(largest, face.size)
            yield face


def _second_look(image: Image.Image, candidate: Detection) -> Face | None:
    """The candidate with the landmarks of a look at it alone and at its mirror image; None if either shows no face."""
    frame = (FRAME + _MARGIN) * _SECOND_LOOK / (1 + 2 * _MARGIN)
    there = similarity(candidate.landmarks, frame)
    close = _warp(image, there, _SECOND_LOOK, border="edge")
    mirrored = close.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = _nearest(detect(close, threshold=CONFIRM_SCORE), frame)
    seen_mirrored = _nearest([_mirror(d, _SECOND_LOOK) for d in detect(mirrored, threshold=CONFIRM_SCORE)], frame)
    if seen is None or seen_mirrored is None:
        return None
    landmarks = _apply(np.linalg.inv(there), (seen.landmarks + seen_mirrored.landmarks) / 2)
    return Face(image, landmarks, candidate.box, (seen.score + seen_mirrored.score) / 2)


def _nearest(found: list[Detection], frame: Float[np.ndarray, "5 2"]) -> Detection | None:
    """The detection whose landmarks are where they were expected, within an eye distance."""
    nearest = min(found, key=lambda d: float(np.abs(d.landmarks - frame).mean()), default=None)
    eye_distance = float(frame[1, 0] - frame[0, 0])
    return nearest if nearest and np.abs(nearest.landmarks - frame).mean() < eye_distance else None


def _once(faces: Iterator[Face]) -> list[Face]:
    """Two candidates that turned out to be the same face are one."""
    found: list[Face] = []
    for face in faces:
        if all(np.abs(face.landmarks - other.landmarks).mean() > other.eye_distance / 2 for other in found):
            found.append(face)
    return found


def _mirror(detection: Detection, width: int) -> Detection:
    left, top, right, bottom = detection.box
    landmarks = np.array([width, 0]) + detection.landmarks * np.array([-1, 1])
    return Detection(np.array([width - right, top, width - left, bottom]), detection.score, landmarks[[1, 0, 2, 4, 3]])


def _apply(transform: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    moved: Float[np.ndarray, "n 2"] = points @ transform[:2, :2].T + transform[:2, 2]
    return moved


def _warp(image: Image.Image, transform: Float[np.ndarray, "3 3"], size: int, *, border: Border) -> Image.Image:
    """The square of ``size`` pixels that ``transform`` takes from the picture. Reduced first, oversampled twice."""
    back = np.linalg.inv(transform)
    corners = _apply(back, np.array([(0.0, 0.0), (size, 0.0), (size, size), (0.0, size)]))
    factor = max(1, round(float(np.sqrt(abs(np.linalg.det(back)))) / 2))
    part, corner = _part(image, corners.min(0), corners.max(0), factor, border)
    # from the twice as large square into the reduced part: out / 2 -> picture -> part
    inverse = np.diag([1 / factor, 1 / factor, 1.0]) @ _shift(-corner) @ back @ np.diag([0.5, 0.5, 1.0])
    large = part.transform(
        (2 * size, 2 * size), Image.Transform.AFFINE, tuple(inverse[:2].ravel()), Image.Resampling.BICUBIC
    )
    return large.resize((size, size), Image.Resampling.LANCZOS)


def _part(
    image: Image.Image, low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"], factor: int, border: Border
) -> tuple[Image.Image, Float[np.ndarray, " 2"]]:
    """The picture between two corners and a little more, reduced by ``factor``, extended where it leaves the picture.

    Also returns the corner of the part in pixels of the picture.
    """
    cells = -(-np.array(image.size) // factor)
    first = np.floor(low / factor).astype(int) - 4  # bicubic interpolation looks two pixels further
    last = np.ceil(high / factor).astype(int) + 4
    inside_first = np.clip(first, 0, cells - 1)
    inside_last = np.clip(last, inside_first + 1, cells)
    box = (*(inside_first * factor).tolist(), *np.minimum(inside_last * factor, image.size).tolist())
    left, top = np.maximum(inside_first - first, 0)
    right, bottom = np.maximum(last - inside_last, 0)
    pixels = np.pad(np.asarray(image.reduce(factor, box)), ((top, bottom), (left, right), (0, 0)), mode=border)
    return Image.fromarray(pixels), (first * factor).astype(np.float64)


def _shift(by: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "3 3"]:
    transform = np.eye(3)
    transform[:2, 2] = by
    return transform


def _laplacian_variance(grey: Image.Image) -> float:
    """Of the middle of an aligned picture."""
    pixels = _middle(grey)
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((4 * pixels[1:-1, 1:-1] - around).var())


def _middle(grey: Image.Image) -> Float[np.ndarray, "h w"]:
    """The middle of an aligned picture: from above the eyes to the chin, without hair and background."""
    size = grey.width
    return np.asarray(grey, dtype=np.float64)[int(0.30 * size) : int(0.85 * size), int(0.2 * size) : int(0.8 * size)]
