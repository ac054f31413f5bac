"""Errors: the problem document of a refused request, and why a job failed."""

from __future__ import annotations

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class FaceBox(Answer):
    """Where a face is in a photo that is upright, as fractions of its width and height from the top left corner."""

    left: float = Field(examples=[0.22])
    top: float = Field(examples=[0.27])
    right: float = Field(examples=[0.78])
    bottom: float = Field(examples=[0.88])


class FieldProblem(Answer):
    """One field that is wrong, and why; of photos, one reason against one of them."""

    field: str | None = Field(default=None, examples=["prompt"])
    message: str = Field(examples=["String should have at most 1000 characters"])
    code: str | None = Field(default=None, description="Why a photo was refused.", examples=["face-too-dark"])
    photo: int | None = Field(default=None, description="Which photo, from 0, in the order sent.", examples=[0])
    advice: str | None = Field(default=None, description="What to do about a photo.")
    faces: list[FaceBox] | None = Field(
        default=None, description="The faces in the photo; their numbers in this list, from 0, are those of `face`."
    )


class Problem(Answer):
    """RFC 9457. `type` and `code` are stable; `title` and `detail` are for people."""

    type: str = Field(examples=["urn:hyperdreambooth:problem:no-face"])
    title: str = Field(examples=["No face was found in the photo."])
    status: int = Field(examples=[422])
    detail: str = Field(description="What happened, and what to do about it.")
    code: str = Field(examples=["no-face"])
    field: str | None = Field(default=None, description="The part of the request that is to blame.", examples=["photo"])
    retryable: bool = Field(description="Whether the same request can succeed later, without being changed.")
    request_id: str = Field(description="Names this request in the service's logs.", examples=["req_4f1c2ab09d3e5f67"])
    errors: list[FieldProblem] | None = Field(
        default=None, description="Each field that is wrong, and each reason against a photo."
    )
    faces: int | None = Field(default=None, description="How many faces were found, where there is more than one.")


class Failure(Answer):
    """Why a job failed, with the same codes as the problem documents."""

    code: str = Field(examples=["out-of-time"])
    detail: str = Field(examples=["The job took longer than is allowed."])
