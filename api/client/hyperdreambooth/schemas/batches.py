"""Batches over the wire: requests with their limits, answers with their examples."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from core.records import MAX_ITEMS, BatchStatus, ItemStatus
from hyperdreambooth.schemas.service import (
    EXAMPLE_TIME,
    JOB_ID,
    OTHER_SUBJECT_ID,
    SUBJECT_ID,
    WHOSE,
    Answer,
    Asked,
    Failure,
    FieldProblem,
    GenerationRequest,
    ImageInfo,
    Images,
    NegativePrompt,
    Prompt,
    Seed,
    Side,
    Steps,
    SubjectId,
)

BATCH_ID = "bat_01k2c9f4kx5w2r8m3tq7v6n0p"
_IMAGE: JsonDict = {
    "id": f"img_{JOB_ID.removeprefix('job_')}-0",
    "url": f"/v1/images/img_{JOB_ID.removeprefix('job_')}-0",
    "seed": 7,
    "width": 64,
    "height": 64,
}
CustomId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class BatchItem(GenerationRequest):
    """A generation, and what its caller calls it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"custom_id": "ada-1", "subject_id": SUBJECT_ID, "prompt": "a pencil sketch of a [V] face"}],
            "oneOf": WHOSE,
        }
    )

    custom_id: CustomId | None = Field(default=None, description="Your own name for it; it comes back in the results.")


class BatchDefaults(Asked):
    """What holds for every item that does not say otherwise; the fields are those of a generation."""

    n: Images = 1
    seed: Seed | None = None
    steps: Steps | None = None
    guidance_scale: Annotated[float, Field(ge=1, le=30, allow_inf_nan=False)] | None = None
    width: Side | None = None
    height: Side | None = None
    negative_prompt: NegativePrompt = ""
    stage: Literal["preview", "refined"] = "refined"


class BatchRequest(Asked):
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
            "anyOf": [{"required": ["prompts", "subject_ids"]}, {"required": ["items"]}],
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
            raise PydanticCustomError("both", "Send prompts and subject_ids together.")
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
    """How many items stand how; a moment old."""

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
    """A batch as it stands."""

    id: str = Field(examples=[BATCH_ID])
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
    """An item of a batch as it stands."""

    index: int = Field(description="Its place in the batch, from 0.", examples=[0])
    line: int | None = Field(description="The line it stood in, of a JSONL body, from 1.", examples=[1])
    custom_id: str | None = Field(examples=["ada-1"])
    status: ItemStatus = Field(examples=["succeeded"])
    job_id: str | None = Field(description="Its job, once there is one.", examples=[JOB_ID])
    seed: int | None = Field(description="Of its first picture.", examples=[7])
    images: list[ImageInfo] | None = Field(examples=[[_IMAGE]])
    error: ItemFailure | None = None


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
