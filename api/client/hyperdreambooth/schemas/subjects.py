"""Subjects: a person (or thing) that pictures can be made of."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from hyperdreambooth.schemas.base import (
    EXAMPLE_TIME,
    JOB_ID,
    NOT_BLANK,
    SUBJECT_ID,
    Answer,
    Integer,
    Livemode,
    RequestModel,
    Seed,
)
from hyperdreambooth.schemas.images import IMAGE, ImageInfo
from hyperdreambooth.schemas.problems import Failure

CONSENT_VERSION = "1"
"""Changes whenever the meaning of `consent=true` does; stored with each subject."""
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), Field(json_schema_extra=NOT_BLANK)
]
ClassNoun = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z \-]{0,39}$")]


def _agreed(consent: bool) -> bool:
    if not consent:
        raise PydanticCustomError("consent", "Send true, when the person in the photo has agreed.")
    return consent


Consent = Annotated[bool, AfterValidator(_agreed)]
WeightsStage: TypeAlias = Literal["preview", "refined"]
"""Which weights of a subject: `preview`, the latest before finetuning has ended, or `refined`, after it."""
WeightsFormat: TypeAlias = Literal["lidb", "peft", "kohya"]
"""What a weights file is for: this service, diffusers and PEFT, or A1111 and ComfyUI."""


class SubjectStatus(StrEnum):
    """What a subject can be used for."""

    PERSONALIZING = "personalizing"
    """Its first weights are being made: the job is queued or running."""
    READY = "ready"
    """It has weights."""
    FAILED = "failed"
    """Personalizing failed; `error` says why."""
    CANCELED = "canceled"
    """Personalizing was canceled."""


class PersonalizeOptions(RequestModel):
    """How to personalize; what is left out is the model's default."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rank": 4, "steps": 50, "seed": 0}]})

    rank: Annotated[int, Field(ge=1, le=16), Integer] | None = Field(
        default=None, description="Rank of the weights after relaxing."
    )
    steps: Annotated[int, Field(ge=1, le=500), Integer] | None = Field(
        default=None, description="Finetuning steps, 1 to 500; `personalize_steps` of the model when left out."
    )
    seed: Seed = Field(default=0, description="Of the finetuning's random numbers.")


class PhotosForm(RequestModel):
    """The fields beside more photos; without `keep_photos` they are kept if the ones before were."""

    consent: Consent
    keep_photos: bool | None = None
    face: str = ""


class SubjectForm(PhotosForm):
    """The fields beside the photos of a new subject."""

    name: Name | None = None
    class_noun: ClassNoun | None = None


class CheckForm(RequestModel):
    """The fields beside photos that are only checked."""

    face: str = ""


class PhotoWarning(Answer):
    """What the use of a photo will cost, which was accepted all the same."""

    photo: int = Field(description="Which of all photos that were sent, from 0, in their order.", examples=[0])
    code: str = Field(examples=["eyes-covered"])
    message: str = Field(examples=["The eyes are behind dark glasses and are not learnt: pictures show made-up eyes."])


class ConsentGiven(Answer):
    """When consent was given, and to which version of its meaning."""

    at: datetime = Field(examples=[EXAMPLE_TIME])
    version: str = Field(examples=[CONSENT_VERSION])


_WEIGHTS: JsonDict = {
    "bytes": 72716,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "url": f"/v1/subjects/{SUBJECT_ID}/weights",
}


class WeightsInfo(Answer):
    """A subject's weights file."""

    bytes: int = Field(examples=[_WEIGHTS["bytes"]])
    sha256: str = Field(examples=[_WEIGHTS["sha256"]])
    url: str = Field(examples=[_WEIGHTS["url"]])


class SubjectLinks(Answer):
    """Where to go from a subject."""

    self: str = Field(examples=[f"/v1/subjects/{SUBJECT_ID}"])
    job: str = Field(examples=[f"/v1/jobs/{JOB_ID}"])


class SubjectAnswer(Answer):
    """A person that pictures can be made of. `stage`, `step` and `total` are the progress of personalizing."""

    id: str = Field(examples=[SUBJECT_ID])
    livemode: Livemode = True
    status: SubjectStatus = Field(examples=["ready"])
    name: str | None = Field(default=None, examples=["Ada"])
    class_noun: str | None = Field(default=None, examples=["face"])
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    consent: ConsentGiven | None = Field(default=None, examples=[{"at": EXAMPLE_TIME, "version": CONSENT_VERSION}])
    photos_kept: int = Field(
        description="Aligned photos in the store; they go when personalizing ends, unless `keep_photos` was `true`.",
        examples=[0],
    )
    photos_sent: int = Field(description="Photos that were sent in all.", examples=[1])
    refining: bool = Field(
        default=False, description="Whether a job makes new weights of more photos; these ones serve until then."
    )
    job_id: str = Field(examples=[JOB_ID])
    stage: str | None = Field(default=None, description="The stage of personalizing that runs now.")
    step: int | None = Field(default=None, description="The step of that stage, from 0 to `total`.")
    total: int | None = Field(default=None, description="How many steps that stage has.")
    likeness: float | None = Field(
        default=None,
        description="How alike pictures are to the photo: the mean cosine of the recognisers, where there is one.",
        examples=[0.98],
    )
    likeness_by: dict[str, float] = Field(
        default={}, description="The cosine of each recogniser, by its name.", examples=[{"bundle": 0.98}]
    )
    tries: int | None = Field(default=None, description="How often finetuning was tried: once.", examples=[1])
    kept_step: int | None = Field(
        default=None, description="The finetuning step whose weights were kept.", examples=[50]
    )
    weights: WeightsInfo | None = Field(default=None, examples=[_WEIGHTS])
    preview_ready: bool = Field(
        default=False, description="Whether there are weights for `stage=preview`.", examples=[True]
    )
    preview: ImageInfo | None = Field(
        default=None, description="The latest picture made before finetuning had ended.", examples=[IMAGE]
    )
    bundle: str | None = Field(default=None, description="The model that made the weights.", examples=["faces-128"])
    bundle_fingerprint: str | None = Field(default=None, examples=["c0ffee12"])
    seconds: dict[str, float] = Field(default={}, description="Seconds each stage took.", examples=[{"finetune": 18.2}])
    error: Failure | None = None
    warnings: list[PhotoWarning] = Field(default=[], description="About all photos that were sent.")
    links: SubjectLinks


class SubjectPage(Answer):
    """Some subjects, newest first. `next_cursor` asks for those after them; there are no more without it."""

    subjects: list[SubjectAnswer]
    next_cursor: str | None = None


class DeletionReceipt(Answer):
    """What was deleted, and when."""

    subject_id: str = Field(examples=[SUBJECT_ID])
    deleted_at: datetime = Field(examples=[EXAMPLE_TIME])
    job_ids: list[str] = Field(examples=[[JOB_ID]])
