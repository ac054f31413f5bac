"""What can speak against the face of a photo: each check finds a reason to refuse it, or None."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import (
    FaceCutOff,
    FaceTooBlurred,
    FaceTooBright,
    FaceTooDark,
    FaceTooSmall,
    FaceTurnedAway,
    PhotoRefused,
)
from core.hyperdreambooth.faces.alignment import Face
from core.photos.framing import FEATURES, has_landmark_outside, share_outside
from core.photos.quality import blown_out, brightness, sharpness, turn

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

MAX_OUTSIDE = 0.06
"""The share of brows, eyes, nose and mouth that may lie beyond the photo's edge."""


@dataclass(frozen=True)
class Reason:
    """Why a photo was refused: the error that it is, what was seen, and what to do about it."""

    error: type[PhotoRefused]
    seen: str
    advice: str

    @property
    def detail(self) -> str:
        """Both sentences as one."""
        if not self.advice:
            return self.seen
        return f"{self.seen.removesuffix('.')}: {self.advice[0].lower()}{self.advice[1:]}"


CUT_OFF = Reason(
    FaceCutOff,
    "The face is cut off by the photo's edge.",
    "Send a photo that shows all of it, with some space around it.",
)


def reasons_against(face: Face) -> tuple[Reason, ...]:
    """All that speaks against a face, the worst first; nothing when it is good enough to personalize with."""
    found = (check(face) for check in (_cut_off, _small, _turned, _dark, _bright, _blurred))
    return tuple(reason for reason in found if reason is not None)


def _cut_off(face: Face) -> Reason | None:
    return CUT_OFF if has_landmark_outside(face) or share_outside(face, FEATURES) > MAX_OUTSIDE else None


def _small(face: Face) -> Reason | None:
    if face.eye_distance >= MIN_EYE_DISTANCE:
        return None
    apart = f"The eyes are {face.eye_distance:.0f} pixels apart"
    seen = f"{apart}, at least {MIN_EYE_DISTANCE:.0f} are needed and 60 are better."
    return Reason(FaceTooSmall, seen, "Send a larger picture, or one taken from nearer.")


def _turned(face: Face) -> Reason | None:
    if abs(turn(face)) <= MAX_TURN:
        return None
    return Reason(FaceTurnedAway, "The face is seen from the side.", "Send a photo in which it faces the camera.")


def _dark(face: Face) -> Reason | None:
    if brightness(face) >= MIN_BRIGHTNESS:
        return None
    return Reason(
        FaceTooDark, "The face is in the dark.", "Send a photo taken in daylight, with the light on the face."
    )


def _bright(face: Face) -> Reason | None:
    if blown_out(face) <= MAX_BLOWN_OUT:
        return None
    seen = "Much of the face is nothing but white."
    return Reason(FaceTooBright, seen, "Send a photo without flash or direct sun on it.")


def _blurred(face: Face) -> Reason | None:
    if sharpness(face) >= MIN_SHARPNESS:
        return None
    return Reason(FaceTooBlurred, "The face is out of focus, moved or scaled up.", "Send a sharper photo.")
