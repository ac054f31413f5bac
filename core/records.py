"""What a job and a subject are: frozen records, written as JSON to the store and as fields to Redis.

Times are seconds since 1970 (UTC) as floats. Ids sort by the time they were made, are safe in a URL and unguessable.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

LOCAL_TENANT = "local"
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Moment: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Seconds since 1970, before the year 10,000: what a date can be made of."""
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
MAX_ITEMS = 10_000
"""Items in a batch."""
SEEDS = 2**32
"""How many seeds there are, from 0."""


class JobKind(StrEnum):
    """What a job does; the value is also the last part of its queue's name in Redis."""

    PERSONALIZE = "personalize"
    """Photo in, weights out."""
    GENERATE = "generate"
    """Prompt and weights in, images out."""


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    """Accepted, waiting for a worker (again, after an attempt that was cut off)."""
    RUNNING = "running"
    """A worker holds the lease."""
    SUCCEEDED = "succeeded"
    """The result is in the store."""
    FAILED = "failed"
    """It ended without a result; `error` says why."""
    CANCELED = "canceled"
    """It was asked to stop, and it has."""

    @property
    def is_final(self) -> bool:
        """Nothing changes any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


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


class PictureNote(StrEnum):
    """What a picture says of how it was made, where the caller asks for it: a shared picture tells it to everyone."""

    PROMPT = "prompt"
    SEED = "seed"
    SUBJECT = "subject"
    """The ids of whom it shows."""


class WeightsStage(StrEnum):
    """Which weights of a subject."""

    PREVIEW = "preview"
    """What the hypernetwork predicted; what a third of finetuning gave, once it has."""
    REFINED = "refined"
    """After finetuning."""


class BatchStatus(StrEnum):
    """How a batch stands."""

    RUNNING = "running"
    """Some of its items are still to be done."""
    CANCELING = "canceling"
    """Nothing more is begun; what runs is being stopped."""
    COMPLETED = "completed"
    """All its items are over, however they ended."""
    CANCELED = "canceled"
    """It was canceled, and all its items are over."""


class ItemStatus(StrEnum):
    """How an item of a batch stands."""

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


class DeliveryState(StrEnum):
    """What became of a message to a webhook (webhooks.py); all but the first are final."""

    PENDING = "pending"
    """To be sent, for the first time or again."""
    DELIVERED = "delivered"
    """The other side answered with a 2xx."""
    GIVEN_UP = "given_up"
    """It did not for 24 hours, or said 410 (Gone)."""
    DROPPED = "dropped"
    """The webhook was disabled before."""


class Record(BaseModel):
    """A frozen record. Fields that a newer version wrote are ignored: old workers can finish beside new ones.

    Where a field has an alias, the alias is its name in the store, from an earlier version.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, serialize_by_alias=True)


class Failure(Record):
    """Why a job failed: a code of `core.errors`, and a sentence for the person who asked."""

    code: str
    detail: str


class PersonalizeRequest(Record):
    """What a personalizing job was asked to do. `photos` are store keys of aligned PNGs of one person."""

    kind: Literal["personalize"] = "personalize"
    subject_id: str
    photos: tuple[str, ...]
    rank: int | None = None
    steps: int | None = None
    seed: int = 0
    class_noun: str | None = None
    start_key: str = ""
    """Weights of the same person to go on from, in the store; empty: begin anew."""

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Whom it is about."""
        return (self.subject_id,)


class Share(Record):
    """One subject's share of a blend; the shares of a blend sum to 1. `weights_key` as in GenerateRequest."""

    subject_id: str
    weight: float = Field(ge=0, le=1)
    weights_key: str = ""


class GenerationOptions(Record):
    """How pictures are made; None means the bundle's default."""

    prompt: str
    negative_prompt: str = ""
    n: int = Field(default=1, ge=1)
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    width: int | None = None
    height: int | None = None
    metadata: tuple[PictureNote, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture: one more than that of the one before; after the largest comes 0."""
        return tuple((self.seed + index) % SEEDS for index in range(self.n))


class GenerateRequest(GenerationOptions):
    """The request of a generating job.

    `weights_key` pins the weights when the job is accepted, so that running it again
    gives the same bytes; callers leave it empty. A mixture of several subjects has their shares in `blend`: then
    `subject_id` is the first of them, and the shares pin the weights.
    """

    kind: Literal["generate"] = "generate"
    subject_id: str
    blend: tuple[Share, ...] = ()
    stage: WeightsStage = WeightsStage.REFINED
    weights_key: str = ""

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Whom it is about: one subject, or all of the blend."""
        return tuple(share.subject_id for share in self.blend) or (self.subject_id,)

    def pinned(self, key_of: Callable[[str], str]) -> GenerateRequest:
        """The request with the weights that its subjects have now; `key_of` gives their key for a subject's id."""
        shares = tuple(share.model_copy(update={"weights_key": key_of(share.subject_id)}) for share in self.blend)
        key = shares[0].weights_key if shares else key_of(self.subject_id)
        return self.model_copy(update={"weights_key": key, "blend": shares})

    @property
    def options(self) -> GenerationOptions:
        """How the pictures are made, without whom they show."""
        return GenerationOptions.model_validate(self.model_dump())

    @property
    def batch_group(self) -> str:
        """Jobs whose groups are equal can run as one batch: what has to be the same for all rows of it."""
        return f"steps={self.steps} height={self.height} width={self.width}"


Request: TypeAlias = Annotated[PersonalizeRequest | GenerateRequest, Field(discriminator="kind")]


class Weights(Record):
    """A subject's weights in the store: keys of .lidb files, size and SHA-256 (hex) of the refined one."""

    refined_key: str
    preview_key: str | None = None
    bytes: Count
    sha256: str


class PersonalizeResult(Record):
    """What personalizing gave. `likeness` is the mean cosine of the recognisers in `likeness_by`, None without one."""

    kind: Literal["personalize"] = "personalize"
    weights: Weights
    likeness: Finite | None = None
    likeness_by: dict[str, Finite] = {}
    tries: Count = 1
    kept_step: Count
    bundle: str
    bundle_fingerprint: str


class Image(Record):
    """One generated picture: its public id, its seed and its size in pixels. Its key follows from the id (`keys`).

    `likeness` is the cosine with the photos of its subject, None where it was not measured.
    """

    id: str
    seed: Count
    width: Count
    height: Count
    likeness: Finite | None = None


class Preview(Record):
    """The first weights, while finetuning still runs, by a picture of them.

    `before` are the pictures of earlier previews: a client that was notified of one can still fetch it.
    """

    image: Image
    before: tuple[Image, ...] = ()


class GenerateResult(Record):
    """What generating gave, and what was asked for; None in results of earlier versions."""

    kind: Literal["generate"] = "generate"
    images: tuple[Image, ...]
    options: GenerationOptions | None = None


Result: TypeAlias = Annotated[PersonalizeResult | GenerateResult, Field(discriminator="kind")]


class Job(Record):
    """A job as it stands. `seconds` are the timings of each stage, `share` how much of all is done, 0 to 1.

    Every event of its stream counts `version` up by one; `event_id` is the id of the last one. `blended_with` are the
    other subjects of a blend, after `subject_id`. `batch_id` is the batch whose item it is, or empty.
    """

    id: str
    tenant: str
    kind: JobKind
    subject_id: str
    blended_with: tuple[str, ...] = ()
    batch_id: str = ""
    state: JobState
    version: Count = 0
    attempt: Count = 0
    fence: Count = 0
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    stage: str = ""
    step: Count = 0
    total: Count = 0
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    seconds_left: Moment | None = None
    cancel_requested: bool = False
    error: Failure | None = None
    result: Result | None = None
    seconds: dict[str, Finite] = {}
    preview: Preview | None = None
    event_id: Annotated[str, Field(pattern="^([0-9]{1,18}-[0-9]{1,18})?$")] = ""
    request_id: str = ""

    @property
    def ref(self) -> str:
        """The job's name in the queue: tenant and id."""
        return f"{self.tenant}/{self.id}"

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Whom it is about; it dies with the first of them that is deleted."""
        return (self.subject_id, *self.blended_with)


class Consent(Record):
    """That the person in the photo agreed, when, and to which version of the text."""

    at: float
    version: str


class SubjectWarning(Record):
    """What the use of one of its photos costs a subject: `photo` from 0, in the order in which all were sent."""

    photo: int
    code: str
    message: str


class Subject(Record):
    """A person (or thing) that pictures can be made of. `job_id` is the job that personalizes it, or did.

    While it is `refining`, a job makes new weights of more photos, and the subject goes on with those it has.
    """

    id: str
    tenant: str
    status: SubjectStatus
    created_at: float
    job_id: str
    name: str | None = None
    class_noun: str | None = None
    consent: Consent | None = None
    consents: tuple[Consent, ...] = ()
    """Those that came with more photos."""
    photos: tuple[str, ...] = ()
    """Keys of the photos that its job learns from, and afterwards of those that are kept."""
    photos_sent: int = 1
    warnings: tuple[SubjectWarning, ...] = ()
    """About all photos that were sent."""
    keep_photos: bool = False
    """Whether the caller asked to keep them for refining."""
    refining: bool = False
    weights: Weights | None = None
    preview_image: Image | None = None
    likeness: float | None = None
    likeness_by: dict[str, float] = {}
    tries: int | None = None
    kept_step: int | None = None
    bundle: str | None = None
    bundle_fingerprint: str | None = None
    seconds: dict[str, float] = {}
    error: Failure | None = None

    @property
    def is_busy(self) -> bool:
        """Whether its job is queued or running."""
        return self.refining or self.status is SubjectStatus.PERSONALIZING


class Receipt(Record):
    """Proof that a subject was deleted. It names no person: ids and times only."""

    subject_id: str
    tenant: str
    deleted_at: float
    job_ids: tuple[str, ...] = ()
    notified: bool = Field(default=False, alias="told")
    """Whether the webhooks were notified: they are once."""
    late: tuple[str, ...] | None = None
    """The jobs that a worker may still write to, once all the others are erased."""
