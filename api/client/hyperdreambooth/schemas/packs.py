"""Packs: named lists of prompts that run as one batch."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.config import JsonValue

from hyperdreambooth.schemas.base import EXAMPLE_TIME, PACK_ID, Answer, RequestModel
from hyperdreambooth.schemas.generations import Prompt
from hyperdreambooth.schemas.subjects import Name

MAX_PACKS = 100
"""Packs of each tenant."""
MAX_PACK_PROMPTS = 50
_PROMPTS: list[JsonValue] = ["a pencil sketch of a [V] face", "an oil painting of a [V] face"]


class PackRequest(RequestModel):
    """A name, and the prompts that it stands for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Drawn and painted", "prompts": _PROMPTS}]})

    name: Name = Field(description="What people choose it by.")
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PACK_PROMPTS)] = Field(
        description="In the order in which their pictures are to be made; each with `[V]` where the person goes."
    )


class PackAnswer(Answer):
    """A named list of prompts: send them as the `prompts` of a batch."""

    id: str = Field(examples=[PACK_ID])
    name: str = Field(examples=["Drawn and painted"])
    prompts: list[str] = Field(examples=[_PROMPTS])
    of_model: bool = Field(
        description="Whether it came with the model; such a pack cannot be deleted.", examples=[False]
    )
    created_at: datetime | None = Field(
        description="When it was created; null where it is the model's.", examples=[EXAMPLE_TIME]
    )


class PackList(Answer):
    """All packs: those of the model, then your own, oldest first."""

    packs: list[PackAnswer]
