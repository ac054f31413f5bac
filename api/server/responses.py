"""From records to what goes over the wire, and when not to send it again: ETags and 304 answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from api.server.public_address import link
from core.ids import is_test
from core.jobs.pictures import Picture
from core.records import Failure, GenerateResult, Image, Job, JobKind, JobState, Receipt, Subject
from hyperdreambooth import schemas

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not changed since the ETag in If-None-Match."}}

THUMBNAIL = 256
"""The longer side of a thumbnail, in pixels."""


def when(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def subject_answer(subject: Subject, job: Job | None = None) -> schemas.SubjectAnswer:
    """`job` is the one that is personalizing it now, if any."""
    return schemas.SubjectAnswer(
        id=subject.id,
        livemode=not is_test(subject.tenant),
        status=subject.status,
        name=subject.name,
        class_noun=subject.class_noun,
        created_at=datetime.fromtimestamp(subject.created_at, UTC),
        consent=_consent(subject),
        photos_kept=len(subject.photos),
        photos_sent=subject.photos_sent,
        refining=subject.refining,
        job_id=subject.job_id,
        **_progress(job),
        likeness=subject.likeness,
        likeness_by=subject.likeness_by,
        tries=subject.tries,
        kept_step=subject.kept_step,
        weights=_weights(subject),
        preview_ready=bool(subject.weights and subject.weights.preview_key) or bool(job and job.preview),
        preview=_preview(subject, job),
        bundle=subject.bundle,
        bundle_fingerprint=subject.bundle_fingerprint,
        seconds=subject.seconds,
        error=_failure(subject.error),
        warnings=[schemas.PhotoWarning(**vars(warning)) for warning in subject.warnings],
        links=schemas.SubjectLinks(self=link(f"/v1/subjects/{subject.id}"), job=link(f"/v1/jobs/{subject.job_id}")),
    )


def job_answer(
    job: Job, *, position: int | None = None, warnings: list[schemas.RequestWarning] | None = None
) -> schemas.JobAnswer:
    """`position` in the queue, and `warnings` about the request that made it."""
    result = job.result
    return schemas.JobAnswer(
        id=job.id,
        livemode=not is_test(job.tenant),
        kind=job.kind,
        status=job.state,
        subject_id=job.subject_id,
        subject_ids=list(job.subject_ids),
        created_at=datetime.fromtimestamp(job.created_at, UTC),
        started_at=when(job.started_at),
        finished_at=when(job.finished_at),
        attempt=job.attempt,
        position=position,
        **_progress(job),
        **overall(job.state, job.share, job.seconds_left),
        cancel_requested=job.cancel_requested,
        batch_id=job.batch_id or None,
        seconds=job.seconds,
        preview=image_answer(job.preview.image) if job.preview else None,
        images=[image_answer(image) for image in result.images] if isinstance(result, GenerateResult) else None,
        error=_failure(job.error),
        warnings=warnings or [],
        links=_job_links(job),
    )


def image_answer(image: Image) -> schemas.ImageInfo:
    """Where a picture is, and how it was made."""
    url = link(f"/v1/images/{image.id}")
    return schemas.ImageInfo(
        id=image.id, url=url, seed=image.seed, width=image.width, height=image.height, likeness=image.likeness
    )


def picture_answer(picture: Picture) -> schemas.PictureAnswer:
    """A picture, whom it shows, and what it was made with."""
    info, job, options = image_answer(picture.image), picture.job, picture.options
    names = ("prompt", "negative_prompt", "steps", "guidance_scale", "strength")
    return schemas.PictureAnswer(
        **info.model_dump(),
        thumbnail=f"{info.url}?size={THUMBNAIL}",
        livemode=not is_test(job.tenant),
        job_id=job.id,
        batch_id=job.batch_id or None,
        subject_ids=list(job.subject_ids),
        created_at=datetime.fromtimestamp(job.created_at, UTC),
        **{name: getattr(options, name, None) for name in names},
    )


def receipt_answer(receipt: Receipt) -> schemas.DeletionReceipt:
    """What was deleted."""
    return schemas.DeletionReceipt(
        subject_id=receipt.subject_id,
        deleted_at=datetime.fromtimestamp(receipt.deleted_at, UTC),
        job_ids=list(receipt.job_ids),
    )


def _progress(job: Job | None) -> schemas.Progress:
    if job is None or not job.stage:
        return {"stage": None, "step": None, "total": None}
    return {"stage": job.stage, "step": job.step, "total": job.total or None}


def overall(state: JobState, share: float, seconds_left: float | None) -> schemas.Overall:
    """How much of a job is done, and how long the rest takes, while it runs."""
    done = 1.0 if state is JobState.SUCCEEDED else share
    return {"progress": done, "seconds_left": seconds_left if state is JobState.RUNNING else None}


def _consent(subject: Subject) -> schemas.ConsentGiven | None:
    if subject.consent is None:
        return None
    return schemas.ConsentGiven(at=datetime.fromtimestamp(subject.consent.at, UTC), version=subject.consent.version)


def _weights(subject: Subject) -> schemas.WeightsInfo | None:
    if subject.weights is None:
        return None
    url = link(f"/v1/subjects/{subject.id}/weights")
    return schemas.WeightsInfo(bytes=subject.weights.bytes, sha256=subject.weights.sha256, url=url)


def _failure(error: Failure | None) -> schemas.Failure | None:
    return None if error is None else schemas.Failure(code=error.code, detail=error.detail)


def _preview(subject: Subject, job: Job | None) -> schemas.ImageInfo | None:
    image = job.preview.image if job and job.preview else subject.preview_image
    return image_answer(image) if image else None


def _job_links(job: Job) -> schemas.JobLinks:
    made_weights = job.kind is JobKind.PERSONALIZE and job.state is JobState.SUCCEEDED
    return schemas.JobLinks(
        self=link(f"/v1/jobs/{job.id}"),
        subject=link(f"/v1/subjects/{job.subject_id}"),
        events=link(f"/v1/jobs/{job.id}/events"),
        cancel=None if job.state.is_final else link(f"/v1/jobs/{job.id}/cancel"),
        weights=link(f"/v1/subjects/{job.subject_id}/weights") if made_weights else None,
    )


def etag(body: bytes) -> str:
    """The ETag of a body: a hash of what would be sent."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names this ETag."""
    candidates = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return tag in candidates or "*" in candidates


def cache_headers(tag: str) -> dict[str, str]:
    """The headers of an answer that callers may keep under this ETag, and must revalidate each time."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def cacheable(response: Response, if_none_match: str | None) -> Response:
    """The response with its ETag, or an empty 304 when the caller has it."""
    tag = etag(bytes(response.body))
    headers = cache_headers(tag)
    if not matches(if_none_match, tag):
        response.headers.update(headers)
        return response
    kept = {name: response.headers[name] for name in ("Retry-After", "Vary", "Location") if name in response.headers}
    return Response(status_code=304, headers={**headers, **kept})


def preferred(accept: str, kinds: Sequence[str]) -> str:
    """The one of these media types that an Accept header names with most weight; the first where it names none.

    Of several with the same weight it is the last.
    """
    weights = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights[kind] = next((_weight(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
    best = max(reversed(kinds), key=lambda kind: weights.get(kind, 0.0))
    return best if weights.get(best, 0.0) > 0 else kinds[0]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
