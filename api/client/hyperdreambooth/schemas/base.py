"""The bases of all requests and answers, and the types that several resources share. Times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

MAX_SEED = 2**32 - 1

NOT_BLANK: JsonDict = {"pattern": r"\S"}
"""What "at least one character after stripping" is in a JSON schema."""
SubjectId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = BeforeValidator(_as_integer)
"""JSON has one kind of number: 4.0 is 4. It comes after the limits, which the JSON schema would lose otherwise."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), Integer]

SUBJECT_ID = "sub_01k2c9f4hx7mzt3qv8r5n6w0p"
OTHER_SUBJECT_ID = "sub_01k2c9f7sd4b8y1x6v3q9n0m2"
JOB_ID = "job_01k2c9f4j0b6e8s2xk4y7g3c1"
IMAGE_ID = "img_01k2c9f4j0b6e8s2xk4y7g3c1-0"
BATCH_ID = "bat_01k2c9f4kx5w2r8m3tq7v6n0p"
PACK_ID = "pck_01k2c9f4n2d7h4j6k8m0p2r4t"
WEBHOOK_ID = "whk_01k2c9f4m3e8n5r7t2v6x0z4a"
EXAMPLE_TIME = "2024-05-04T10:20:30.120000Z"
Livemode = Annotated[
    bool, Field(description="False for what was made with a test key: fixed pictures, free.", examples=[True])
]


class RequestModel(BaseModel):
    """A request: unknown fields are refused, and values of another type are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """An answer of the service."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")
