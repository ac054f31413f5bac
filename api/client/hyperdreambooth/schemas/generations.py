"""Generations: a prompt and a subject, or a blend of several, become pictures."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from hyperdreambooth.schemas.base import (
    NOT_BLANK,
    OTHER_SUBJECT_ID,
    SUBJECT_ID,
    Answer,
    Integer,
    RequestModel,
    Seed,
    SubjectId,
)
from hyperdreambooth.schemas.subjects import WeightsStage

PLACEHOLDER = "[V]"
"""The person in a prompt."""
MAX_IMAGES = 16
MAX_BLEND = 8
"""Subjects in a blend."""
MIN_SIDE, MAX_SIDE = 32, 1024
"""Pixels of a side, for any model; `GET /v1/models` says what this one takes."""
MAX_STEPS = 100
MIN_GUIDANCE, MAX_GUIDANCE = 1.0, 30.0
MAX_PROMPT = 1000
"""Characters."""

Prompt = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT),
    Field(json_schema_extra=NOT_BLANK),
]
NegativePrompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_PROMPT)]
PictureNote = Literal["prompt", "seed", "subject"]
"""What a picture can say of how it was made."""
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=8), Integer]


class GenerationOptions(RequestModel):
    """The options of a generation, with their limits."""

    # Requests, batches, the client and the command line all take theirs from here: see docs/decisions/0012.
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES), Integer] = Field(default=1, description="How many pictures.")
    seed: Seed | None = Field(
        default=None, description="Picture i is made with seed + i; after 4294967295 comes 0. Random when left out."
    )
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS), Integer] | None = Field(
        default=None, description="Denoising steps; the model's default when left out."
    )
    guidance_scale: Annotated[float, Field(ge=MIN_GUIDANCE, le=MAX_GUIDANCE, allow_inf_nan=False)] | None = Field(
        default=None, description="How strictly the prompt is followed; the model's default when left out."
    )
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="How much the subject's weights count: 1 (the default) is most like the photo, 0 the base model.",
    )
    width: Side | None = Field(default=None, description="In pixels; the model's own size when left out.")
    height: Side | None = Field(default=None, description="In pixels; the model's own size when left out.")
    negative_prompt: NegativePrompt = Field(default="", description="What should not be in the pictures.")
    stage: WeightsStage = Field(
        default="refined",
        description="Which weights: `refined`, or `preview`, the latest ones from before finetuning has ended.",
    )
    metadata: Annotated[list[PictureNote], Field(max_length=len(get_args(PictureNote)))] = Field(
        default=[],
        description="What the files tell whoever gets them, besides that they were made with AI.",
    )


class RequestWarning(Answer):
    """What was changed about a request, or has no effect, though it was accepted."""

    code: str = Field(examples=["words-dropped"])
    message: str = Field(
        examples=['The model reads 22 tokens of a prompt. What comes after them was dropped: "in the rain".']
    )
    field: str = Field(description="The field of the request that it is about.", examples=["prompt"])
    words: list[str] = Field(
        default=[], description="The pieces of that field that it is about.", examples=[["in", "the", "rain"]]
    )


class BlendPart(RequestModel):
    """One subject of a blend, and how much of it."""

    subject_id: SubjectId = Field(examples=[SUBJECT_ID])
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        description="Counts in proportion to the others: 1 and 3 are the same as 0.25 and 0.75.", examples=[0.25]
    )


_ONE_OF = "Send either subject_id or a blend, and not both."
SUBJECT_OR_BLEND: JsonDict = {
    "if": {"required": ["blend"], "properties": {"blend": {"type": "array"}}},
    "then": {"properties": {"subject_id": {"type": "null"}}},
    "else": {"required": ["subject_id"], "properties": {"subject_id": {"type": "string"}}},
}
"""Exactly one of `subject_id` and `blend`, in a request's schema; null is the same as left out.

Not as `oneOf`: of that many programs make clients that cannot say it.
"""


class GenerationRequest(GenerationOptions):
    """A prompt, and the subject, or the blend of several, that the pictures show."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"subject_id": SUBJECT_ID, "prompt": "a pencil sketch of a [V] face", "n": 4, "seed": 7},
                {
                    "blend": [{"subject_id": SUBJECT_ID, "weight": 3}, {"subject_id": OTHER_SUBJECT_ID, "weight": 1}],
                    "prompt": "a [V] face, oil painting",
                },
            ],
            **SUBJECT_OR_BLEND,
        }
    )

    prompt: Prompt = Field(description="With `[V]` where the person goes; added when it is missing, with a warning.")
    blend: Annotated[list[BlendPart], Field(min_length=2, max_length=MAX_BLEND)] | None = Field(
        default=None, description="Instead of `subject_id`: a mixture of these subjects, by weight."
    )
    subject_id: SubjectId | None = Field(default=None, validate_default=True)

    @field_validator("subject_id")
    @classmethod
    def _one_of(cls, subject_id: str | None, others: ValidationInfo) -> str | None:
        blend = others.data.get("blend", ())  # missing when it is wrong itself, which is reported already
        if blend != () and (subject_id is None) == (blend is None):
            raise PydanticCustomError("one_of", _ONE_OF)
        return subject_id
