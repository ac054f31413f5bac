"""Errors: the problem document of a refused request, and why a job failed."""

from __future__ import annotations

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class FieldProblem(Answer):
    """One field that is wrong, and why."""

    field: str | None = Field(default=None, examples=["prompt"])
    message: str = Field(examples=["String should have at most 1000 characters"])


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
    errors: list[FieldProblem] | None = Field(default=None, description="Each field that is wrong.")
    faces: int | None = Field(default=None, description="How many faces were found, where there is more than one.")


class Failure(Answer):
    """Why a job failed, with the same codes as the problem documents."""

    code: str = Field(examples=["out-of-time"])
    detail: str = Field(examples=["The job took longer than is allowed."])
