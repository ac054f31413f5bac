"""Jobs as Redis tells of them. It is believed how far a job is, and never whose it is or where anything lies.

Whoever can write to Redis must not reach another tenant's photo through it: tenant and id come from the name that was
asked for, ids of pictures and keys of weights are made of these, and what is no record at all counts as not there. Whom
the job is about, and which batch it belongs to, is taken from the store wherever something follows from it
(`Accepted.about`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from core.ids import is_id
from core.records import Failure, GenerateResult, Image, Job, PersonalizeResult, Preview, Result
from core.storage import keys

_log = logging.getLogger(__name__)
_RESULT: TypeAdapter[Any] = TypeAdapter(Result)
_SECONDS: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, float])
_TIMES = ("created_at", "started_at", "finished_at")
_LATEST = 253_402_300_799_999
"""Milliseconds since 1970 at the end of the year 9,999."""


class QueuedJob(NamedTuple):
    """A job, and how many are before it in its queue: None when it is not queued."""

    job: Job
    position: int | None


def read_queued(ref: str, answer: list[Any]) -> QueuedJob | None:
    """What the script `read` answers for a job: its record and position, or None when Redis does not know it."""
    flat, position = answer
    job = find_job(ref, dict(zip(flat[0::2], flat[1::2], strict=True)))
    return QueuedJob(job, position) if job else None


def find_job(ref: str, fields: Mapping[str, str]) -> Job | None:
    """The job `ref` from the fields of its hash. None when there are none, or none that make a record."""
    if "state" not in fields:
        return None
    try:
        return read_job(ref, fields)
    except (ValueError, OverflowError):
        _log.error("ledger.unreadable_record", extra={"ref": ref})
        return None


def read_job(ref: str, fields: Mapping[str, str]) -> Job:
    """The job `ref` from the fields of its hash. Raises ValueError."""
    tenant, _, job_id = ref.partition("/")
    values: dict[str, Any] = {key: value for key, value in fields.items() if value != ""}
    values |= {"tenant": tenant, "id": job_id}
    values |= {key: milliseconds(values[key]) / 1000 for key in _TIMES if key in values}
    values["blended_with"] = tuple(fields.get("blended_with", "").split())
    values["cancel_requested"] = fields.get("cancel") == "1"
    values["seconds"] = _SECONDS.validate_json(fields.get("seconds") or "{}")
    values["result"] = _RESULT.validate_json(fields["result"]) if fields.get("result") else None
    values["preview"] = read_preview(job_id, fields.get("preview", ""))
    if fields.get("error_code"):
        values["error"] = Failure(code=fields["error_code"], detail=fields.get("error_detail", ""))
    job = Job.model_validate(values)
    if not all(is_id(each, "sub") for each in job.subject_ids) or not (not job.batch_id or is_id(job.batch_id, "bat")):
        raise ValueError("these are no ids")
    return job.model_copy(update={"result": _own(job)})


def read_preview(job_id: str, text: str) -> Preview | None:
    """What a job shows before it is over, from JSON; None for "". Raises ValueError."""
    if not text:
        return None
    preview = Preview.model_validate_json(text)
    *before, image = _pictures(job_id, (*preview.before, preview.image))
    return Preview(image=image, before=tuple(before))


def milliseconds(text: str) -> int:
    """A time of a record or of an event. Raises ValueError."""
    value = int(text)
    if not 0 <= value <= _LATEST:
        raise ValueError("this is no time")
    return value


def _own(job: Job) -> PersonalizeResult | GenerateResult | None:
    """The job's result with the ids and keys that this job has, whatever it came with; its options are in the store."""
    if isinstance(job.result, GenerateResult):
        return GenerateResult(images=_pictures(job.id, job.result.images))
    if isinstance(job.result, PersonalizeResult):
        given = job.result.weights
        preview = keys.weights(job.tenant, job.id, job.fence, "preview") if given.preview_key else None
        refined = keys.weights(job.tenant, job.id, job.fence, "refined")
        weights = given.model_copy(update={"refined_key": refined, "preview_key": preview})
        return job.result.model_copy(update={"weights": weights})
    return None


def _pictures(job_id: str, images: tuple[Image, ...]) -> tuple[Image, ...]:
    """Pictures with the ids that those of this job have, in their order."""
    return tuple(image.model_copy(update={"id": keys.image_id(job_id, index)}) for index, image in enumerate(images))
