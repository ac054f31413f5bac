"""Batches: many generations in one request, done when nothing else waits."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from hyperdreambooth.schemas.base import (
    BATCH_ID,
    EXAMPLE_TIME,
    JOB_ID,
    OTHER_SUBJECT_ID,
    SUBJECT_ID,
    Answer,
    Livemode,
    RequestModel,
    SubjectId,
)
from hyperdreambooth.schemas.generations import (
    SUBJECT_OR_BLEND,
    GenerationOptions,
    GenerationRequest,
    Prompt,
    RequestWarning,
)
from hyperdreambooth.schemas.images import IMAGE, ImageInfo
from hyperdreambooth.schemas.problems import Failure, FieldProblem

MAX_ITEMS = 10_000
"""Items in a batch."""
CustomId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class BatchStatus(StrEnum):
    """The status of a batch."""

    RUNNING = "running"
    """Some of its items are still to be done."""
    CANCELING = "canceling"
    """Nothing more is begun; what runs is being stopped."""
    COMPLETED = "completed"
    """All its items are over, however they ended."""
    CANCELED = "canceled"
    """It was canceled, and all its items are over."""


class ItemStatus(StrEnum):
    """The status of an item of a batch."""

    QUEUED = "queued"
    """To be done."""
    RUNNING = "running"
    """A worker makes its pictures."""
    SUCCEEDED = "succeeded"
    """Its pictures are there."""
    FAILED = "failed"
    """There will be no pictures; `error` says why."""
    CANCELED = "canceled"
    """The batch was canceled before it was done."""
    INVALID = "invalid"
    """It could not be accepted; `error` says why."""


class BatchItem(GenerationRequest):
    """A generation, with a name of the caller's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"custom_id": "ada-1", "subject_id": SUBJECT_ID, "prompt": "a pencil sketch of a [V] face"}],
            **SUBJECT_OR_BLEND,
        }
    )

    custom_id: CustomId | None = Field(default=None, description="Your own name for it; it comes back in the results.")


class BatchDefaults(GenerationOptions):
    """Options for every item that does not have its own."""


class BatchRequest(RequestModel):
    """Every prompt with every subject, and items of their own: 10,000 in all; at least one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompts": ["a pencil sketch of a [V] face", "a [V] face, oil painting"],
                    "subject_ids": [SUBJECT_ID, OTHER_SUBJECT_ID],
                    "defaults": {"n": 2, "seed": 7},
                }
            ],
            "if": {"required": ["items"]},
            "else": {"required": ["prompts", "subject_ids"]},
            "dependentRequired": {"prompts": ["subject_ids"], "subject_ids": ["prompts"]},
        }
    )

    prompts: Annotated[list[Prompt], Field(min_length=1)] = Field(
        default=[], description="Each is done with each of `subject_ids`."
    )
    subject_ids: Annotated[list[SubjectId], Field(min_length=1)] = Field(default=[])
    items: Annotated[list[BatchItem], Field(min_length=1)] = Field(
        default=[], description="Done besides, after the others."
    )
    defaults: BatchDefaults = BatchDefaults()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.prompts) != bool(self.subject_ids):
            raise PydanticCustomError("both", "Send both prompts and subject_ids.")
        total = len(self.prompts) * len(self.subject_ids) + len(self.items)
        if total > MAX_ITEMS or not total:
            raise PydanticCustomError("items", f"Send 1 to {MAX_ITEMS} items: these are {total}.")
        return self

    def generations(self) -> list[BatchItem]:
        """All items with the defaults in them: a subject's prompts one after the other, then those of their own."""
        shared: dict[str, Any] = {name: getattr(self.defaults, name) for name in self.defaults.model_fields_set}
        pairs = [
            BatchItem(prompt=prompt, subject_id=subject_id, **shared)
            for subject_id in self.subject_ids
            for prompt in self.prompts
        ]
        return pairs + [item.model_copy(update=_missing(item, shared)) for item in self.items]


class BatchCounts(Answer):
    """How many items have each status; a moment old."""

    total: int = Field(examples=[4])
    queued: int = Field(examples=[0])
    running: int = Field(examples=[0])
    succeeded: int = Field(examples=[4])
    failed: int = Field(examples=[0])
    canceled: int = Field(examples=[0])
    invalid: int = Field(description="Items that were not accepted; `items?status=invalid` says why.", examples=[0])


class BatchLinks(Answer):
    """Where to go from a batch; `cancel` is there while it can still be canceled."""

    self: str = Field(examples=[f"/v1/batches/{BATCH_ID}"])
    items: str = Field(examples=[f"/v1/batches/{BATCH_ID}/items"])
    results: str = Field(examples=[f"/v1/batches/{BATCH_ID}/results"])
    cancel: str | None = Field(default=None, examples=[f"/v1/batches/{BATCH_ID}/cancel"])


class BatchAnswer(Answer):
    """A batch: its status, and how many of its items have each status."""

    id: str = Field(examples=[BATCH_ID])
    livemode: Livemode = True
    status: BatchStatus = Field(description="`completed` when all items are over, however they ended.")
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    finished_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    expires_at: datetime | None = Field(
        default=None, description="When it is deleted, with its pictures, once it is over.", examples=[EXAMPLE_TIME]
    )
    counts: BatchCounts
    links: BatchLinks


class BatchPage(Answer):
    """Some batches, newest first. `next_cursor` asks for those after them; there are no more without it."""

    batches: list[BatchAnswer]
    next_cursor: str | None = None


class ItemFailure(Failure):
    """Why an item has no pictures; `errors` names each field that is wrong."""

    errors: list[FieldProblem] | None = None


class BatchItemAnswer(Answer):
    """An item of a batch: its status, and its pictures or its error."""

    index: int = Field(description="Its place in the batch, from 0.", examples=[0])
    line: int | None = Field(description="The line it stood in, of a JSONL body, from 1.", examples=[1])
    custom_id: str | None = Field(examples=["ada-1"])
    status: ItemStatus = Field(examples=["succeeded"])
    job_id: str | None = Field(description="Its job, once there is one.", examples=[JOB_ID])
    prompt: str | None = Field(
        default=None, description="As it was done, with `[V]`.", examples=["a pencil sketch of a [V] face"]
    )
    seed: int | None = Field(description="Of its first picture.", examples=[7])
    images: list[ImageInfo] | None = Field(examples=[[IMAGE]])
    error: ItemFailure | None = None
    warnings: list[RequestWarning] = Field(default=[], description="What has no effect in it, as of a generation.")


class BatchItemPage(Answer):
    """Some items, in their order. `next_cursor` asks for those after them; there are no more without it."""

    items: list[BatchItemAnswer]
    next_cursor: str | None = None


class BatchDeleted(Answer):
    """A batch that is being erased."""

    batch_id: str = Field(examples=[BATCH_ID])
    deleted_at: datetime = Field(examples=[EXAMPLE_TIME])


def _missing(item: BatchItem, shared: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shared.items() if name not in item.model_fields_set}
