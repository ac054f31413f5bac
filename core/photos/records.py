"""What a check of a photo found, as data: reasons to refuse it and warnings, all at once, so that a page can show them.

Nothing here reads pixels: `check_photo` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.errors import DifferentPeople, PhotoRefused, SeveralFaces
from core.hyperdreambooth.faces.alignment import Face
from core.hyperdreambooth.faces.dlib_recogniser import Appearance
from core.photos.framing import Place
from core.photos.reasons import Reason
from core.photos.same_person import compare


@dataclass(frozen=True)
class PhotoWarning:
    """What the use of an accepted photo will cost: a stable, public code, and a sentence."""

    code: str
    detail: str


@dataclass(frozen=True, eq=False)
class PhotoCheck:
    """A photo without ``reasons`` is accepted. ``face`` is its subject, number ``number`` of the faces at ``places``.

    ``covers`` names what of the face is hidden, and ``appearance`` is its embedding; both are empty without a face.
    """

    reasons: tuple[Reason, ...] = ()
    warnings: tuple[PhotoWarning, ...] = ()
    places: tuple[Place, ...] = ()
    number: int | None = None
    covers: tuple[str, ...] = ()
    face: Face | None = field(default=None, repr=False)
    appearance: Appearance | None = field(default=None, repr=False)

    def error(self) -> PhotoRefused | None:
        """The first of the reasons as an error; None when there is none."""
        if not self.reasons:
            return None
        first = self.reasons[0]
        if first.error is SeveralFaces:
            return SeveralFaces(first.detail, count=len(self.places))
        return first.error(first.detail)


def compare_photos(checks: Sequence[PhotoCheck], kept: Sequence[PhotoCheck] = ()) -> list[PhotoCheck]:
    """The checks of photos that were sent as one person's, and in them what the photos say of each other.

    A photo of another person gets a reason, one that may be of another person a warning. ``kept`` are the checks of
    photos that the person has already (see `check_crop`): who is meant stands then, however many others are sent.
    """
    if len(kept) + len(checks) < 2:
        return list(checks)
    compared = [*kept, *checks]
    found = compare([each.appearance for each in compared], [bool(each.covers) for each in compared], len(kept))
    for number in found.others:
        compared[number] = replace(compared[number], reasons=(*compared[number].reasons, _OTHER))
    for number in found.unsure:
        compared[number] = replace(compared[number], warnings=(*compared[number].warnings, _UNSURE))
    return compared[len(kept) :]


_OTHER = Reason(
    DifferentPeople,
    "This photo shows another person than the others.",
    "Send photos of one person; where several people are in a photo, say which face is meant.",
)
_UNSURE = PhotoWarning("unsure-same-person", "This photo may show another person than the others.")
