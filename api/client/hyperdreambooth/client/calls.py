"""Every operation as data (call.py). Whoever adds one writes it here, and a line of it in each client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import httpx

from hyperdreambooth import schemas
from hyperdreambooth.client.call import (
    Call,
    answer_as,
    content,
    create,
    get,
    given,
    id_of,
    lines_as,
    page,
    parse,
    path_of,
)
from hyperdreambooth.schemas import ItemStatus, JobKind, JobStatus

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
WebhookRef: TypeAlias = str | schemas.WebhookAnswer
"""A webhook or its id."""
BatchRef: TypeAlias = str | schemas.BatchAnswer
"""A batch or its id."""


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


def create_subject(
    photos: Photo | Sequence[Photo], *, consent: bool, options: SubjectOptions
) -> Call[schemas.SubjectAnswer]:
    """Photos of one person, and what to make of them."""
    who = given({key: options.get(key) for key in ("name", "class_noun")})
    data = _form(consent, options) | who
    return create("subjects", read=answer_as(schemas.SubjectAnswer), data=data, files=_files(photos))


def add_photos(
    ref: SubjectRef, photos: Photo | Sequence[Photo], *, consent: bool, options: PhotoOptions
) -> Call[schemas.SubjectAnswer]:
    """More photos of a subject's person."""
    read = answer_as(schemas.SubjectAnswer)
    return create("subjects", id_of(ref), "photos", read=read, data=_form(consent, options), files=_files(photos))


def subjects(cursor: str | None) -> Call[schemas.SubjectPage]:
    """Some of the subjects."""
    return get("subjects", read=answer_as(schemas.SubjectPage), params=page(cursor))


def subject(ref: SubjectRef) -> Call[schemas.SubjectAnswer]:
    """A subject as it stands."""
    return get("subjects", id_of(ref), read=answer_as(schemas.SubjectAnswer))


def delete_subject(ref: SubjectRef) -> Call[schemas.DeletionReceipt]:
    """Erase a subject; the receipt is the same when it is asked for again."""
    return Call("DELETE", path_of("subjects", id_of(ref)), answer_as(schemas.DeletionReceipt))


def weights(ref: SubjectRef, file_format: WeightsFormat, stage: Stage) -> Call[bytes]:
    """A weights file."""
    return get("subjects", id_of(ref), "weights", read=content, params={"format": file_format, "stage": stage})


def generate(whose: Whose, prompt: str, options: GenerateOptions) -> Call[schemas.JobAnswer]:
    """Pictures of somebody."""
    whom: dict[str, Any] = (
        {"blend": [{"subject_id": name, "weight": weight} for name, weight in whose.items()]}
        if isinstance(whose, Mapping)
        else {"subject_id": id_of(whose)}
    )
    return create("generations", read=answer_as(schemas.JobAnswer), json={**whom, "prompt": prompt, **given(options)})


def create_batch(asked: Mapping[str, Any]) -> Call[schemas.BatchAnswer]:
    """Many generations."""
    return create("batches", read=answer_as(schemas.BatchAnswer), json=asked)


def upload_batch(lines: bytes | Path) -> Call[schemas.BatchAnswer]:
    """A generation in each line."""
    data = lines.read_bytes() if isinstance(lines, Path) else lines
    kind = {"Content-Type": "application/jsonl"}
    return create("batches", read=answer_as(schemas.BatchAnswer), content=data, headers=kind)


def batches(cursor: str | None) -> Call[schemas.BatchPage]:
    """Some of the batches."""
    return get("batches", read=answer_as(schemas.BatchPage), params=page(cursor))


def batch(ref: BatchRef) -> Call[schemas.BatchAnswer]:
    """A batch as it stands."""
    return get("batches", id_of(ref), read=answer_as(schemas.BatchAnswer))


def batch_items(cursor: str | None, ref: BatchRef, status: ItemStatus | None) -> Call[schemas.BatchItemPage]:
    """Some of a batch's items."""
    params = page(cursor) | given({"status": status})
    return get("batches", id_of(ref), "items", read=answer_as(schemas.BatchItemPage), params=params)


def batch_results(ref: BatchRef) -> Call[list[schemas.BatchItemAnswer]]:
    """All of a batch's items."""
    return get("batches", id_of(ref), "results", read=lines_as(schemas.BatchItemAnswer))


def cancel_batch(ref: BatchRef) -> Call[schemas.BatchAnswer]:
    """Stop a batch. Not to be repeated, as `cancel`."""
    path = path_of("batches", id_of(ref), "cancel")
    return Call("POST", path, answer_as(schemas.BatchAnswer), repeatable=False)


def delete_batch(ref: BatchRef) -> Call[schemas.BatchDeleted]:
    """Erase a batch. Not to be repeated: the second time it is a 404."""
    path = path_of("batches", id_of(ref))
    return Call("DELETE", path, answer_as(schemas.BatchDeleted), repeatable=False)


def job(ref: JobRef, *, wait: int = 0) -> Call[schemas.JobAnswer]:
    """A job as it stands, or when it is over, or after `wait` seconds."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    path = path_of("jobs", job_id(ref))
    return Call("GET", path, answer_as(schemas.JobAnswer), patience=wait, options={"headers": headers})


def changed_job(ref: JobRef, etag: str, *, wait: int) -> Call[tuple[schemas.JobAnswer | None, str]]:
    """A job and its ETag; None when it is still what `etag` names. See `job`."""

    def read(answer: httpx.Response) -> tuple[schemas.JobAnswer | None, str]:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return None, etag
        return parse(schemas.JobAnswer, answer), answer.headers.get("etag", "")

    headers = given({"Prefer": f"wait={wait}" if wait else None, "If-None-Match": etag or None})
    return Call("GET", path_of("jobs", job_id(ref)), read, patience=wait, options={"headers": headers})


def events(ref: JobRef, last_event_id: str, silence: float) -> Call[httpx.Response]:
    """A job's events, those after `last_event_id`; a stream that is silent for so many seconds is broken."""
    headers = {"Accept": "text/event-stream", **given({"Last-Event-ID": last_event_id or None})}
    path = path_of("jobs", job_id(ref), "events")
    return Call("GET", path, lambda answer: answer, silence=silence, options={"headers": headers})


def jobs(
    cursor: str | None,
    *,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    subject: SubjectRef | None = None,
) -> Call[schemas.JobPage]:
    """Some of the jobs."""
    only = given({"status": status, "kind": kind, "subject_id": None if subject is None else id_of(subject)})
    return get("jobs", read=answer_as(schemas.JobPage), params=page(cursor) | only)


def cancel(ref: JobRef) -> Call[schemas.JobAnswer]:
    """Stop a job. Not to be repeated: a job that the first request has ended would be a 409."""
    return Call("POST", path_of("jobs", job_id(ref), "cancel"), answer_as(schemas.JobAnswer), repeatable=False)


def image(ref: ImageRef, kind: ImageKind) -> Call[bytes]:
    """A picture."""
    return get("images", id_of(ref), read=content, headers={"Accept": f"image/{kind}"})


def create_webhook(
    url: str, events: Sequence[schemas.WebhookEventName] | None, description: str | None
) -> Call[schemas.WebhookCreated]:
    """Somewhere to tell of what happens."""
    asked = given({"url": url, "events": None if events is None else list(events), "description": description})
    return create("webhooks", read=answer_as(schemas.WebhookCreated), json=asked)


def webhooks() -> Call[list[schemas.WebhookAnswer]]:
    """All webhooks."""
    return get("webhooks", read=lambda answer: parse(schemas.WebhookList, answer).webhooks)


def webhook(ref: WebhookRef) -> Call[schemas.WebhookAnswer]:
    """A webhook."""
    return get("webhooks", id_of(ref), read=answer_as(schemas.WebhookAnswer))


def delete_webhook(ref: WebhookRef) -> Call[None]:
    """End a webhook. Not to be repeated: the second time it is a 404."""
    return Call("DELETE", path_of("webhooks", id_of(ref)), lambda _: None, repeatable=False)


def test_webhook(ref: WebhookRef) -> Call[schemas.DeliveryAnswer]:
    """A message that only says hello."""
    return create("webhooks", id_of(ref), "test", read=answer_as(schemas.DeliveryAnswer))


def rotate_webhook(ref: WebhookRef, overlap_hours: int) -> Call[schemas.WebhookCreated]:
    """A new secret."""
    read = answer_as(schemas.WebhookCreated)
    return create("webhooks", id_of(ref), "rotate", read=read, params={"overlap_hours": overlap_hours})


def enable_webhook(ref: WebhookRef) -> Call[schemas.WebhookAnswer]:
    """Told again."""
    return Call("POST", path_of("webhooks", id_of(ref), "enable"), answer_as(schemas.WebhookAnswer))


def deliveries(ref: WebhookRef, limit: int) -> Call[list[schemas.DeliveryAnswer]]:
    """What a webhook was told."""

    def read(answer: httpx.Response) -> list[schemas.DeliveryAnswer]:
        return parse(schemas.DeliveryList, answer).deliveries

    return get("webhooks", id_of(ref), "deliveries", read=read, params={"limit": limit})


def models() -> Call[list[schemas.ModelAnswer]]:
    """The bundles the service runs."""
    return get("models", read=lambda answer: parse(schemas.ModelList, answer).models)


def usage(days: int) -> Call[schemas.UsageAnswer]:
    """What was used."""
    return get("usage", read=answer_as(schemas.UsageAnswer), params={"days": days})


def job_id(ref: JobRef) -> str:
    """A job's id."""
    return ref.job_id if isinstance(ref, schemas.SubjectAnswer) else id_of(ref)


def _files(photos: Photo | Sequence[Photo]) -> list[tuple[str, tuple[str, bytes]]]:
    """The photos under a name that says nothing: a file's own may be its person's."""
    several = [photos] if isinstance(photos, bytes | Path) else photos
    return [("photo", ("photo", photo.read_bytes() if isinstance(photo, Path) else photo)) for photo in several]


def _form(consent: bool, options: PhotoOptions) -> dict[str, str]:
    """The fields beside the photos."""
    keep = options.get("keep_photos")
    how = given({key: options.get(key) for key in ("rank", "steps", "seed")})
    asked = {"consent": _yes_or_no(consent), "keep_photos": None if keep is None else _yes_or_no(keep)}
    return {**given(asked), "options": json.dumps(how)}


def _yes_or_no(answer: bool) -> str:
    return "true" if answer else "false"
