"""Jobs: what the service does for a request, how far it is, and the events of its progress."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from pydantic import Field

from hyperdreambooth.schemas.base import EXAMPLE_TIME, JOB_ID, SUBJECT_ID, Answer, Livemode
from hyperdreambooth.schemas.generations import RequestWarning
from hyperdreambooth.schemas.images import IMAGE, ImageInfo
from hyperdreambooth.schemas.problems import Failure


class JobKind(StrEnum):
    """What a job does."""

    PERSONALIZE = "personalize"
    """Photos in, weights out."""
    GENERATE = "generate"
    """Prompt and weights in, images out."""


class JobStatus(StrEnum):
    """The status of a job; the last three are final."""

    QUEUED = "queued"
    """Accepted, waiting for a worker (again, after an attempt that was cut off)."""
    RUNNING = "running"
    """A worker works on it."""
    SUCCEEDED = "succeeded"
    """The result is in the store."""
    FAILED = "failed"
    """It ended without a result; `error` says why."""
    CANCELED = "canceled"
    """It was asked to stop, and has stopped."""

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


class JobEventType(StrEnum):
    """What happened to a job; the last four end the stream."""

    QUEUED = "queued"
    """Accepted, or back in the queue after an attempt that was cut off."""
    RUNNING = "running"
    """A worker has begun an attempt."""
    PROGRESS = "progress"
    """A step is done; the first and last of a stage, and at most four a second between them."""
    PREVIEW = "preview"
    """The first weights can be used, and there is a picture made with them."""
    CANCEL_REQUESTED = "cancel_requested"
    """A running job was asked to stop."""
    SUCCEEDED = "succeeded"
    """The result is there."""
    FAILED = "failed"
    """It ended without a result."""
    CANCELED = "canceled"
    """It has stopped."""
    DELETED = "deleted"
    """The job was erased with its subject."""

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self in (JobEventType.SUCCEEDED, JobEventType.FAILED, JobEventType.CANCELED, JobEventType.DELETED)


class Progress(TypedDict):
    """The fields of an answer that say how far a job is."""

    stage: str | None
    step: int | None
    total: int | None


class Overall(TypedDict):
    """The fields of an answer that say how far a job is over all its stages."""

    progress: float
    seconds_left: float | None


class JobLinks(Answer):
    """Where to go from a job; `cancel` is there while it can still be canceled."""

    self: str = Field(examples=[f"/v1/jobs/{JOB_ID}"])
    subject: str = Field(examples=[f"/v1/subjects/{SUBJECT_ID}"])
    events: str = Field(examples=[f"/v1/jobs/{JOB_ID}/events"])
    cancel: str | None = None
    weights: str | None = Field(default=None, description="The weights that a job that personalizes has made.")


class JobAnswer(Answer):
    """A job: its status, its progress, and its result."""

    id: str = Field(examples=[JOB_ID])
    livemode: Livemode = True
    kind: JobKind = Field(examples=["generate"])
    status: JobStatus = Field(examples=["succeeded"])
    subject_id: str = Field(description="The subject; of a blend the first one.", examples=[SUBJECT_ID])
    subject_ids: list[str] = Field(description="The subject, or all those of the blend.", examples=[[SUBJECT_ID]])
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    started_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    finished_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    attempt: int = Field(description="How often it was started.", examples=[1])
    position: int | None = Field(default=None, description="How many jobs are before it, while it is queued.")
    stage: str | None = Field(default=None, description="The stage of the job that runs now.", examples=["generate"])
    step: int | None = Field(default=None, description="The step of that stage, from 0 to `total`.", examples=[20])
    total: int | None = Field(default=None, description="How many steps that stage has.", examples=[20])
    progress: float = Field(
        default=0.0, description="How much of the whole job is done, over all its stages: 0 to 1.", examples=[1.0]
    )
    seconds_left: float | None = Field(
        default=None, description="Seconds that the rest will take, while it runs and as far as is known."
    )
    cancel_requested: bool = False
    batch_id: str | None = Field(default=None, description="The batch whose item it is.")
    seconds: dict[str, float] = Field(default={}, description="Seconds each stage took.", examples=[{"generate": 2.4}])
    preview: ImageInfo | None = Field(
        default=None, description="Of a job that personalizes: the latest picture before finetuning has ended."
    )
    images: list[ImageInfo] | None = Field(
        default=None, description="The pictures, when generating has succeeded.", examples=[[IMAGE]]
    )
    error: Failure | None = None
    warnings: list[RequestWarning] = Field(
        default=[], description="What was changed about the request, or has no effect; at creation only."
    )
    links: JobLinks


class JobPage(Answer):
    """Some jobs, newest first. `next_cursor` asks for those after them; there are no more without it.

    With a filter a page can be short, or empty, and still have a `next_cursor`: when much was looked through.
    """

    jobs: list[JobAnswer]
    next_cursor: str | None = None


class JobEvent(Answer):
    """The `data` of an event: what happened to a job, and its status then. What does not apply is left out."""

    type: JobEventType = Field(description="The same as the event's name.", examples=["progress"])
    job_id: str = Field(examples=[JOB_ID])
    version: int = Field(
        description="The event's number. It counts up by one; with a hole in it, events have expired.", examples=[3]
    )
    at: datetime = Field(examples=[EXAMPLE_TIME])
    status: JobStatus = Field(examples=["running"])
    attempt: int = Field(examples=[1])
    stage: str | None = Field(default=None, description="The stage of the job that runs now.", examples=["finetune"])
    step: int | None = Field(default=None, examples=[4])
    total: int | None = Field(default=None, examples=[80])
    progress: float = Field(default=0.0, description="How much of the whole job is done: 0 to 1.", examples=[0.31])
    seconds_left: float | None = Field(default=None, description="Seconds that the rest will take.", examples=[9.5])
    preview: ImageInfo | None = Field(default=None, description="With `preview`: the picture.")
    job: JobAnswer | None = Field(default=None, description="With the last event: the job as it ended.")
