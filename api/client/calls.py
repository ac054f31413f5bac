"""Every operation as data: the request, and how its answer is read. Nothing here opens a connection or waits."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from api import schemas, schemas_webhooks
from api.client.problem import unexpected
from core.jobs import JobKind, JobState

Photo: TypeAlias = bytes | Path
Stage: TypeAlias = Literal["preview", "refined"]
WeightsFormat: TypeAlias = Literal["lidb", "peft", "kohya"]
ImageKind: TypeAlias = Literal["png", "webp"]

SubjectRef: TypeAlias = str | schemas.SubjectAnswer
"""A subject or its id."""
Whose: TypeAlias = SubjectRef | Mapping[str, float]
"""Whose pictures: one subject's, or those of a blend of several, by id and weight."""
JobRef: TypeAlias = str | schemas.JobAnswer | schemas.SubjectAnswer
"""A job or its id; a subject stands for the job that personalises it."""
ImageRef: TypeAlias = str | schemas.ImageInfo
"""A picture or its id."""
WebhookRef: TypeAlias = str | schemas_webhooks.WebhookAnswer
"""A webhook or its id."""

PAGE = 100
"""How much a list is asked for at once."""

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class PhotoOptions(TypedDict, total=False):
    """What personalising may be told; what is left out is the bundle's default. See `PersonalizeOptions`.

    `keep_photos`: keep the aligned photos, so that more photos can be learnt together with them.
    """

    keep_photos: bool | None
    rank: int | None
    steps: int | None
    seed: int | None


class SubjectOptions(PhotoOptions, total=False):
    """What a new subject may be told besides."""

    name: str | None
    class_noun: str | None


class GenerateOptions(TypedDict, total=False):
    """What a generation may say besides prompt and subject; see `GenerationRequest` for the limits."""

    n: int
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    width: int | None
    height: int | None
    negative_prompt: str
    stage: Stage


class Thing(Protocol):
    """What has an id."""

    @property
    def id(self) -> str: ...


class Page(Protocol):
    """A part of a list."""

    @property
    def next_cursor(self) -> str | None:
        """What asks for the part after this one; None in the last one."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `read` makes of its answer what the caller wants.

    `repeatable`: it does no harm when it is carried out twice. `patience`: seconds that its answer may take beside the
    client's own limit; `silence`: seconds that it may be silent, instead of that limit. `options` is what else httpx
    takes: params, headers, json, files, ...
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = True
    patience: float = 0.0
    silence: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """It changes nothing; only reads are redirected, to where a file is: photos go nowhere else."""
        return self.method == "GET"

    def request(self, client: httpx.Client | httpx.AsyncClient, limit: float) -> httpx.Request:
        """What `client` sends; `limit` is the client's own, in seconds."""
        silence = limit + self.patience if self.silence is None else self.silence
        timeout = httpx.Timeout(limit, read=silence)
        return client.build_request(self.method, self.path, timeout=timeout, **self.options)


def create_subject(
    photos: Photo | Sequence[Photo], *, consent: bool, options: SubjectOptions
) -> Call[schemas.SubjectAnswer]:
    """Photos of one person, and what to make of them."""
    who = _given({key: options.get(key) for key in ("name", "class_noun")})
    data = _form(consent, options) | who
    return _create("subjects", read=_model(schemas.SubjectAnswer), data=data, files=_files(photos))


def add_photos(
    ref: SubjectRef, photos: Photo | Sequence[Photo], *, consent: bool, options: PhotoOptions
) -> Call[schemas.SubjectAnswer]:
    """More photos of a subject's person."""
    read = _model(schemas.SubjectAnswer)
    return _create("subjects", _id(ref), "photos", read=read, data=_form(consent, options), files=_files(photos))


def subjects(cursor: str | None) -> Call[schemas.SubjectPage]:
    """Some of the subjects."""
    return _get("subjects", read=_model(schemas.SubjectPage), params=_page(cursor))


def subject(ref: SubjectRef) -> Call[schemas.SubjectAnswer]:
    """A subject as it stands."""
    return _get("subjects", _id(ref), read=_model(schemas.SubjectAnswer))


def delete_subject(ref: SubjectRef) -> Call[schemas.DeletionReceipt]:
    """Erase a subject; the receipt is the same when it is asked for again."""
    return Call("DELETE", _path("subjects", _id(ref)), _model(schemas.DeletionReceipt))


def weights(ref: SubjectRef, file_format: WeightsFormat, stage: Stage) -> Call[bytes]:
    """A weights file."""
    return _get("subjects", _id(ref), "weights", read=_content, params={"format": file_format, "stage": stage})


def generate(whose: Whose, prompt: str, options: GenerateOptions) -> Call[schemas.JobAnswer]:
    """Pictures of somebody."""
    whom: dict[str, Any] = (
        {"blend": [{"subject_id": name, "weight": weight} for name, weight in whose.items()]}
        if isinstance(whose, Mapping)
        else {"subject_id": _id(whose)}
    )
    return _create("generations", read=_model(schemas.JobAnswer), json={**whom, "prompt": prompt, **_given(options)})


def job(ref: JobRef, *, wait: int = 0) -> Call[schemas.JobAnswer]:
    """A job as it stands, or when it is over, or after `wait` seconds."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    path = _path("jobs", job_id(ref))
    return Call("GET", path, _model(schemas.JobAnswer), patience=wait, options={"headers": headers})


def changed_job(ref: JobRef, etag: str, *, wait: int) -> Call[tuple[schemas.JobAnswer | None, str]]:
    """A job and its ETag; None when it is still what `etag` names. See `job`."""

    def read(answer: httpx.Response) -> tuple[schemas.JobAnswer | None, str]:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return None, etag
        return parse(schemas.JobAnswer, answer), answer.headers.get("etag", "")

    headers = _given({"Prefer": f"wait={wait}" if wait else None, "If-None-Match": etag or None})
    return Call("GET", _path("jobs", job_id(ref)), read, patience=wait, options={"headers": headers})


def events(ref: JobRef, last_event_id: str, silence: float) -> Call[httpx.Response]:
    """A job's events, those after `last_event_id`; a stream that is silent for so many seconds is broken."""
    headers = {"Accept": "text/event-stream", **_given({"Last-Event-ID": last_event_id or None})}
    path = _path("jobs", job_id(ref), "events")
    return Call("GET", path, lambda answer: answer, silence=silence, options={"headers": headers})


def jobs(
    cursor: str | None,
    *,
    status: JobState | None = None,
    kind: JobKind | None = None,
    subject: SubjectRef | None = None,
) -> Call[schemas.JobPage]:
    """Some of the jobs."""
    only = _given({"status": status, "type": kind, "subject_id": None if subject is None else _id(subject)})
    return _get("jobs", read=_model(schemas.JobPage), params=_page(cursor) | only)


def cancel(ref: JobRef) -> Call[schemas.JobAnswer]:
    """Stop a job. Not to be repeated: a job that the first request has ended would be a 409."""
    return Call("POST", _path("jobs", job_id(ref), "cancel"), _model(schemas.JobAnswer), repeatable=False)


def image(ref: ImageRef, kind: ImageKind) -> Call[bytes]:
    """A picture."""
    return _get("images", _id(ref), read=_content, headers={"Accept": f"image/{kind}"})


def create_webhook(
    url: str, events: Sequence[schemas_webhooks.EventName] | None, description: str | None
) -> Call[schemas_webhooks.WebhookCreated]:
    """Somewhere to tell of what happens."""
    asked = _given({"url": url, "events": None if events is None else list(events), "description": description})
    return _create("webhooks", read=_model(schemas_webhooks.WebhookCreated), json=asked)


def webhooks() -> Call[list[schemas_webhooks.WebhookAnswer]]:
    """All webhooks."""
    return _get("webhooks", read=lambda answer: parse(schemas_webhooks.WebhookList, answer).webhooks)


def webhook(ref: WebhookRef) -> Call[schemas_webhooks.WebhookAnswer]:
    """A webhook."""
    return _get("webhooks", _id(ref), read=_model(schemas_webhooks.WebhookAnswer))


def delete_webhook(ref: WebhookRef) -> Call[None]:
    """End a webhook. Not to be repeated: the second time it is a 404."""
    return Call("DELETE", _path("webhooks", _id(ref)), lambda _: None, repeatable=False)


def test_webhook(ref: WebhookRef) -> Call[schemas_webhooks.DeliveryAnswer]:
    """A message that only says hello."""
    return _create("webhooks", _id(ref), "test", read=_model(schemas_webhooks.DeliveryAnswer))


def deliveries(ref: WebhookRef, limit: int) -> Call[list[schemas_webhooks.DeliveryAnswer]]:
    """What a webhook was told."""

    def read(answer: httpx.Response) -> list[schemas_webhooks.DeliveryAnswer]:
        return parse(schemas_webhooks.DeliveryList, answer).deliveries

    return _get("webhooks", _id(ref), "deliveries", read=read, params={"limit": limit})


def models() -> Call[list[schemas.ModelAnswer]]:
    """The bundles the service runs."""
    return _get("models", read=lambda answer: parse(schemas.ModelList, answer).models)


def usage(days: int) -> Call[schemas.UsageAnswer]:
    """What was used."""
    return _get("usage", read=_model(schemas.UsageAnswer), params={"days": days})


def job_id(ref: JobRef) -> str:
    """A job's id."""
    return ref.job_id if isinstance(ref, schemas.SubjectAnswer) else _id(ref)


def parse(model: type[ModelT], answer: httpx.Response) -> ModelT:
    """The model that an answer holds. Raises Problem when it holds something else."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        raise unexpected(answer) from None


def _get(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> Call[T]:
    return Call("GET", _path(*parts), read, options=options)


def _create(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> Call[T]:
    """A POST that makes something: once, however often it is sent, by its Idempotency-Key."""
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    return Call("POST", _path(*parts), read, options={"headers": headers, **options})


def _path(*parts: str) -> str:
    """A path under /v1; what callers gave as an id cannot lead elsewhere."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def _page(cursor: str | None) -> dict[str, str | int]:
    return {"limit": PAGE, **_given({"cursor": cursor})}


def _id(ref: str | Thing) -> str:
    return ref if isinstance(ref, str) else ref.id


def _model(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    return lambda answer: parse(model, answer)


def _content(answer: httpx.Response) -> bytes:
    return answer.content


def _files(photos: Photo | Sequence[Photo]) -> list[tuple[str, tuple[str, bytes]]]:
    """The photos under a name that says nothing: a file's own may be its person's."""
    several = [photos] if isinstance(photos, bytes | Path) else photos
    return [("photo", ("photo", photo.read_bytes() if isinstance(photo, Path) else photo)) for photo in several]


def _form(consent: bool, options: PhotoOptions) -> dict[str, str]:
    """The fields beside the photos."""
    keep = options.get("keep_photos")
    how = _given({key: options.get(key) for key in ("rank", "steps", "seed")})
    asked = {"consent": _yes_or_no(consent), "keep_photos": None if keep is None else _yes_or_no(keep)}
    return {**_given(asked), "options": json.dumps(how)}


def _yes_or_no(answer: bool) -> str:
    return "true" if answer else "false"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
