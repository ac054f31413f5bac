"""Photos: what the check of a photo found, before anything is made of it."""

from __future__ import annotations

from pydantic import Field

from hyperdreambooth.schemas.base import Answer
from hyperdreambooth.schemas.problems import FaceBox, FieldProblem
from hyperdreambooth.schemas.subjects import PhotoWarning


class PhotoCheckAnswer(Answer):
    """One photo: the faces in it, the one that is meant, and whether it can be learned from."""

    accepted: bool = Field(description="Whether there is no reason against it.", examples=[True])
    faces: list[FaceBox] = Field(description="The faces; `face` of a request names one by its number in this list.")
    face: int | None = Field(description="The number of the face that is meant, where one is.", examples=[0])
    crop: str | None = Field(
        description="Of an accepted photo, what would be learned from: a WebP of at most 256 pixels, as a `data:` URL.",
        examples=["data:image/webp;base64,UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="],
    )
    reasons: list[FieldProblem] = Field(description="Everything that speaks against it.", examples=[[]])
    warnings: list[PhotoWarning] = Field(description="What its use will cost.", examples=[[]])


class PhotosChecked(Answer):
    """What the photos would be used as, in the order in which they were sent; nothing of them is stored."""

    accepted: bool = Field(description="Whether a subject can be made of these photos.", examples=[True])
    photos: list[PhotoCheckAnswer]
