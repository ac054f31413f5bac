"""What goes over the wire: requests with their limits, answers with their examples. Times are RFC 3339 in UTC."""

from datetime import date, datetime
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError

from core.jobs.events import EventType
from core.records import JobKind, JobState, SubjectStatus

PLACEHOLDER = "[V]"
"""Stands for the person in a prompt."""
CONSENT_VERSION = "1"
"""Changes whenever the meaning of `consent=true` does; stored with each subject."""
MAX_SEED = 2**32 - 1
MAX_IMAGES = 16
MAX_BLEND = 8
"""Subjects in a blend."""

_NOT_BLANK: JsonDict = {"pattern": r"\S"}
"""What it means that a text has at least one character when it was stripped: for the document."""
Prompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), Field(json_schema_extra=_NOT_BLANK)
]
NegativePrompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), Field(json_schema_extra=_NOT_BLANK)
]
ClassNoun = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z \-]{0,39}$")]
SubjectId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""JSON has one kind of number: 4.0 is 4. Behind the limits: before them they would be lost to the document."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), Whole]
Steps = Annotated[int, Field(ge=1, le=100), Whole]
Side = Annotated[int, Field(ge=32, le=1024, multiple_of=8), Whole]
Images = Annotated[int, Field(ge=1, le=MAX_IMAGES), Whole]

SUBJECT_ID = "sub_01k2c9f4hx7mzt3qv8r5n6w0p"
OTHER_SUBJECT_ID = "sub_01k2c9f7sd4b8y1x6v3q9n0m2"
JOB_ID = "job_01k2c9f4j0b6e8s2xk4y7g3c1"
IMAGE_ID = "img_01k2c9f4j0b6e8s2xk4y7g3c1-0"
EXAMPLE_TIME = "2024-05-04T10:20:30.120000Z"


class Asked(BaseModel):
    """A request: what is not known is refused, and nothing is guessed from a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


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


class PersonalizeOptions(Asked):
    """How to personalise; what is left out is the bundle's default."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rank": 4, "steps": 50, "seed": 0}]})

    rank: Annotated[int, Field(ge=1, le=16), Whole] | None = Field(
        default=None, description="Rank of the personal change after relaxing."
    )
    steps: Annotated[int, Field(ge=1, le=500), Whole] | None = Field(
        default=None, description="Finetuning steps, 1 to 500; `personalize_steps` of the model when left out."
    )
    seed: Seed = 0


class SubjectForm(Asked):
    """The fields beside the photos, as they come in a form."""

    consent: Literal["true"]
    name: Name | None = None
    class_noun: ClassNoun | None = None
    keep_photos: Literal["true", "false"] = "false"
    options: str = "{}"


class PhotosForm(Asked):
    """The fields beside more photos; without `keep_photos` they are kept if the ones before were."""

    consent: Literal["true"]
    keep_photos: Literal["true", "false"] | None = None
    options: str = "{}"


class BlendPart(Asked):
    """One subject of a blend, and how much of it."""

    subject_id: SubjectId = Field(examples=[SUBJECT_ID])
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        description="Counts in proportion to the others: 1 and 3 are the same as 0.25 and 0.75.", examples=[0.25]
    )


_ONE_OF = "Send either subject_id or a blend, and not both."
WHOSE: list[JsonValue] = [
    {
        "title": "Of one subject",
        "required": ["subject_id"],
        "properties": {"subject_id": {"type": "string"}, "blend": {"type": "null"}},
    },
    {
        "title": "Of a blend",
        "required": ["blend"],
        "properties": {"subject_id": {"type": "null"}, "blend": {"type": "array"}},
    },
]
"""`oneOf` of a request's schema: exactly one of `subject_id` and `blend`; null is the same as left out."""


class GenerationRequest(Asked):
    """A prompt, and whose pictures to make of it: those of a subject, or of a blend of several."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"subject_id": SUBJECT_ID, "prompt": "a pencil sketch of a [V] face", "n": 4, "seed": 7},
                {
                    "blend": [{"subject_id": SUBJECT_ID, "weight": 3}, {"subject_id": OTHER_SUBJECT_ID, "weight": 1}],
                    "prompt": "a [V] face, oil painting",
                },
            ],
            "oneOf": WHOSE,
        }
    )

    prompt: Prompt = Field(description="With `[V]` where the person goes; added when it is missing, with a warning.")
    blend: Annotated[list[BlendPart], Field(min_length=2, max_length=MAX_BLEND)] | None = Field(
        default=None, description="Instead of `subject_id`: somebody who looks like each of them, by weight."
    )
    subject_id: SubjectId | None = Field(default=None, validate_default=True)
    n: Images = Field(default=1, description="How many pictures.")
    seed: Seed | None = Field(default=None, description="Picture i is made with seed + i; one is drawn when left out.")
    steps: Steps | None = Field(default=None, description="Denoising steps; the bundle's default when left out.")
    guidance_scale: Annotated[float, Field(ge=1, le=30, allow_inf_nan=False)] | None = None
    width: Side | None = Field(default=None, description="In pixels; the bundle's own size when left out.")
    height: Side | None = Field(default=None, description="In pixels; the bundle's own size when left out.")
    negative_prompt: NegativePrompt = ""
    stage: Literal["preview", "refined"] = Field(
        default="refined",
        description="`preview` takes the latest preview's weights: the hypernetwork's, or a third of finetuning's.",
    )

    @field_validator("subject_id")
    @classmethod
    def _one_of(cls, subject_id: str | None, others: ValidationInfo) -> str | None:
        blend = others.data.get("blend", ())  # not there when it is wrong itself, which is said already
        if blend != () and (subject_id is None) == (blend is None):
            raise PydanticCustomError("one_of", _ONE_OF)
        return subject_id


class Failure(Answer):
    """Why it failed, with the same codes as the problem documents."""

    code: str = Field(examples=["out-of-time"])
    detail: str = Field(examples=["The job took longer than is allowed."])


class ConsentGiven(Answer):
    """When consent was given, and to which version of its meaning."""

    at: datetime = Field(examples=[EXAMPLE_TIME])
    version: str = Field(examples=[CONSENT_VERSION])


_WEIGHTS: JsonDict = {
    "bytes": 60692,
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


class Progress(TypedDict):
    """The fields that tell how far a job is."""

    stage: str | None
    step: int | None
    total: int | None


class ImageInfo(Answer):
    """One picture."""

    id: str = Field(examples=[IMAGE_ID])
    url: str = Field(examples=[f"/v1/images/{IMAGE_ID}"])
    seed: int = Field(examples=[7])
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])


_IMAGE: JsonDict = {"id": IMAGE_ID, "url": f"/v1/images/{IMAGE_ID}", "seed": 7, "width": 64, "height": 64}


class SubjectAnswer(Answer):
    """A person that pictures can be made of. `stage`, `step` and `total` tell how far personalising is."""

    id: str = Field(examples=[SUBJECT_ID])
    status: SubjectStatus = Field(examples=["ready"])
    name: str | None = Field(default=None, examples=["Ada"])
    class_noun: str | None = Field(default=None, examples=["face"])
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    consent: ConsentGiven | None = Field(default=None, examples=[{"at": EXAMPLE_TIME, "version": CONSENT_VERSION}])
    photos_kept: int = Field(
        description="Aligned photos in the store; they go when personalising ends, unless `keep_photos` was `true`.",
        examples=[0],
    )
    photos_sent: int = Field(description="Photos that were sent in all.", examples=[1])
    refining: bool = Field(
        default=False, description="Whether a job makes new weights of more photos; these ones serve until then."
    )
    job_id: str = Field(examples=[JOB_ID])
    stage: str | None = Field(default=None, description="What is being done now.")
    step: int | None = None
    total: int | None = None
    likeness: float | None = Field(
        default=None,
        description="How alike pictures are to the photo: the mean cosine of the recognisers, where there is one.",
        examples=[0.98],
    )
    likeness_by: dict[str, float] = Field(
        default={}, description="What each recogniser says, by its name.", examples=[{"bundle": 0.98}]
    )
    tries: int | None = Field(
        default=None, description="2 when the first try's likeness was poor; the better one was kept.", examples=[1]
    )
    kept_step: int | None = Field(
        default=None, description="The finetuning step whose weights were kept.", examples=[50]
    )
    weights: WeightsInfo | None = Field(default=None, examples=[_WEIGHTS])
    preview_ready: bool = Field(
        default=False, description="Whether `stage=preview` can be generated from.", examples=[True]
    )
    preview: ImageInfo | None = Field(
        default=None, description="The latest picture made before finetuning had ended.", examples=[_IMAGE]
    )
    bundle: str | None = Field(default=None, examples=["faces-64"])
    bundle_fingerprint: str | None = Field(default=None, examples=["c0ffee12"])
    seconds: dict[str, float] = Field(default={}, description="Seconds each stage took.", examples=[{"finetune": 18.2}])
    error: Failure | None = None
    links: SubjectLinks


class SubjectPage(Answer):
    """Some subjects, newest first. `next_cursor` asks for those after them; there are no more without it."""

    subjects: list[SubjectAnswer]
    next_cursor: str | None = None


class JobLinks(Answer):
    """Where to go from a job; `cancel` is there while it can still be canceled."""

    self: str = Field(examples=[f"/v1/jobs/{JOB_ID}"])
    subject: str = Field(examples=[f"/v1/subjects/{SUBJECT_ID}"])
    events: str = Field(examples=[f"/v1/jobs/{JOB_ID}/events"])
    cancel: str | None = None
    weights: str | None = Field(default=None, description="What a job that personalises has made.")


class JobAnswer(Answer):
    """A job as it stands."""

    id: str = Field(examples=[JOB_ID])
    kind: JobKind = Field(examples=["generate"])
    status: JobState = Field(examples=["succeeded"])
    subject_id: str = Field(description="The subject; of a blend the first one.", examples=[SUBJECT_ID])
    subject_ids: list[str] = Field(description="The subject, or all those of the blend.", examples=[[SUBJECT_ID]])
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    started_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    finished_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    attempt: int = Field(description="How often it was started.", examples=[1])
    position: int | None = Field(default=None, description="How many jobs are before it, while it is queued.")
    stage: str | None = Field(default=None, examples=["generate"])
    step: int | None = Field(default=None, examples=[20])
    total: int | None = Field(default=None, examples=[20])
    cancel_requested: bool = False
    batch_id: str | None = Field(default=None, description="The batch whose item it is.")
    seconds: dict[str, float] = Field(default={}, description="Seconds each stage took.", examples=[{"generate": 2.4}])
    preview: ImageInfo | None = Field(
        default=None, description="Of a job that personalises: the latest picture before finetuning has ended."
    )
    images: list[ImageInfo] | None = Field(
        default=None, description="The pictures, when generating has succeeded.", examples=[[_IMAGE]]
    )
    error: Failure | None = None
    warnings: list[str] = Field(default=[], description="What was changed about the request, at creation only.")
    links: JobLinks


class JobPage(Answer):
    """Some jobs, newest first. `next_cursor` asks for those after them; there are no more without it.

    With a filter a page can be short, or empty, and still have a `next_cursor`: when much was looked through.
    """

    jobs: list[JobAnswer]
    next_cursor: str | None = None


class JobEvent(Answer):
    """The `data` of an event: what happened to a job, and how it stood then. What does not apply is left out."""

    type: EventType = Field(description="The same as the event's name.", examples=["progress"])
    job_id: str = Field(examples=[JOB_ID])
    version: int = Field(
        description="The event's number. It counts up by one; with a hole in it, events have expired.", examples=[3]
    )
    at: datetime = Field(examples=[EXAMPLE_TIME])
    status: JobState = Field(examples=["running"])
    attempt: int = Field(examples=[1])
    stage: str | None = Field(default=None, examples=["finetune"])
    step: int | None = Field(default=None, examples=[4])
    total: int | None = Field(default=None, examples=[80])
    preview: ImageInfo | None = Field(default=None, description="With `preview`: the picture.")
    job: JobAnswer | None = Field(default=None, description="With the last event: the job as it ended.")


class DeletionReceipt(Answer):
    """What was deleted, and when."""

    subject_id: str = Field(examples=[SUBJECT_ID])
    deleted_at: datetime = Field(examples=[EXAMPLE_TIME])
    job_ids: list[str] = Field(examples=[[JOB_ID]])


class ModelAnswer(Answer):
    """A bundle, what it can do, and what it does when a request does not say."""

    id: str = Field(examples=["faces-64"])
    resolution: int | None = Field(default=None, description="Side of its pictures in pixels.", examples=[64])
    class_noun: str = Field(default="face", examples=["face"])
    has_hypernetwork: bool = Field(
        description="Whether the preview comes before finetuning, and few steps suffice.", examples=[True]
    )
    steps: int = Field(description="Denoising steps.", examples=[20])
    guidance_scale: float = Field(examples=[1.75])
    personalize_steps: int = Field(
        description="Finetuning steps for one photo; each further one takes half as many again, twice as many at most.",
        examples=[50],
    )


class ModelList(Answer):
    """The bundles this service runs."""

    models: list[ModelAnswer]


class Usage(Answer):
    """Jobs that ended, by kind and state, the pictures they made, and the seconds that workers were busy with them."""

    jobs: dict[str, dict[str, int]] = Field(examples=[{"generate": {"succeeded": 12, "failed": 1}}])
    pictures: int = Field(examples=[40])
    seconds: float = Field(examples=[93.2])


class DayUsage(Usage):
    """What was used on one day (UTC)."""

    day: date = Field(examples=["2024-05-04"])


class UsageAnswer(Answer):
    """What a tenant used in the days asked for."""

    tenant: str = Field(examples=["acme"])
    first_day: date = Field(examples=["2024-04-05"])
    last_day: date = Field(examples=["2024-05-04"])
    total: Usage
    days: list[DayUsage] = Field(description="Days on which a job ended, oldest first.")
    live: dict[str, int] | None = Field(
        description="What waits, by kind (`batch`: items of batches), and what is `running`; null while not known.",
        examples=[{"personalize": 0, "generate": 2, "batch": 0, "running": 1}],
    )


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """Whether each thing the service needs answers: `ok`, or the code of what is wrong."""

    status: Literal["ready", "unready"]
    checks: dict[str, str] = Field(examples=[{"redis": "ok", "store": "ok"}])
