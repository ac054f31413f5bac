"""Subjects: a photo becomes somebody whom pictures can be made of."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.server.auth import Personalizes, Tenant
from api.server.dependencies import Finder, JobService, RequestIdOf
from api.server.errors import COMMON, InvalidFields, problems
from api.server.forms import PHOTO_ERRORS, crop_all, photo_form, read_fields
from api.server.idempotency import Idempotent
from api.server.responses import is_personalizing, receipt_answer, subject_answer
from api.server.uploads import read_form
from core import errors
from core.ids import is_id
from core.jobs.service import Jobs
from core.records import Consent, Subject
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/subjects", tags=["subjects"], responses=COMMON)

_FORM = photo_form(
    {"name": "Ada", "options": {"steps": 50}},
    name={
        "description": "For yourself; it comes back in answers.",
        "type": "string",
        "minLength": 1,
        "maxLength": 100,
        "pattern": r"\S",
    },
    class_noun={
        "description": "What `[V]` is, the model's `class_noun` when left out: at most 40 letters, blanks and hyphens.",
        "type": "string",
        "pattern": r"^[A-Za-z][A-Za-z \-]{0,39}$",
    },
)


@router.post(
    "",
    status_code=202,
    summary="Personalise from a photo",
    dependencies=[Idempotent, Personalizes],
    openapi_extra=_FORM,
    responses={
        202: {"headers": {"Location": {"description": "The subject.", "schema": {"type": "string"}}}},
        **problems(*PHOTO_ERRORS),
    },
)
async def create_subject(
    request: Request,
    response: Response,
    job_service: JobService,
    tenant: Tenant,
    find_face: Finder,
    request_id: RequestIdOf,
) -> schemas.SubjectAnswer:
    """Send one or more photos of the same person, and their consent. Personalising starts at once.

    Each photo is judged before anything is stored: a refused one says why. Only the aligned face is stored, made anew
    from pixels, and only until personalising ends, unless `keep_photos` is `true`. Follow `links.job`, or ask for the
    subject again.
    """
    form = await read_form(request)
    fields, options = read_fields(form, schemas.SubjectForm)
    crops = await crop_all(form.photos, find_face, request.app.state.decoders)
    subject, job = await to_thread.run_sync(
        partial(
            job_service.create_subject,
            tenant,
            crops,
            consent=Consent(at=time.time(), version=schemas.CONSENT_VERSION),
            name=fields.name,
            class_noun=fields.class_noun,
            keep_photos=fields.keep_photos == "true",
            request_id=request_id,
            **options.model_dump(),
        )
    )
    response.headers["Location"] = f"/v1/subjects/{subject.id}"
    return subject_answer(subject, job)


@router.get("", summary="List subjects", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
def list_subjects(
    job_service: JobService,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[
        str,
        Query(
            description="The `next_cursor` of the page before.",
            json_schema_extra={"pattern": "^(sub_[0-9a-z]{25})?$"},
        ),
    ] = "",
) -> schemas.SubjectPage:
    """The subjects, newest first, a page at a time. How far personalising is stands in each subject's own document."""
    if cursor and not is_id(cursor, "sub"):
        raise InvalidFields(
            [schemas.FieldProblem(field="cursor", message="Send the next_cursor of a page, unchanged.")]
        )
    found = job_service.subjects(tenant, limit=limit + 1, after=cursor)
    page = found[:limit]
    return schemas.SubjectPage(
        subjects=[subject_answer(subject) for subject in page],
        next_cursor=page[-1].id if len(found) > limit else None,
    )


@router.get(
    "/{subject_id}",
    summary="Read a subject",
    responses=problems(errors.SubjectNotFound, errors.BrokerUnavailable, errors.StoreUnavailable),
)
def read_subject(subject_id: str, job_service: JobService, tenant: Tenant) -> schemas.SubjectAnswer:
    """How personalising stands, and what came of it."""
    return _current(job_service, tenant, job_service.subject(tenant, subject_id))


@router.delete(
    "/{subject_id}",
    status_code=202,
    summary="Delete a subject",
    responses=problems(errors.SubjectNotFound, errors.StoreUnavailable),
)
def delete_subject(subject_id: str, job_service: JobService, tenant: Tenant) -> schemas.DeletionReceipt:
    """Erases photo, weights, images and jobs, also while a job is running: it stops, and its result is dropped.

    From then on everything of the subject is 404. Deleting it again gives the same receipt for 24 hours.
    """
    return receipt_answer(job_service.delete_subject(tenant, subject_id))


def _current(job_service: Jobs, tenant: str, subject: Subject) -> schemas.SubjectAnswer:
    """The subject with its job's progress, or what has become of it in the moment between the two reads."""
    if not is_personalizing(subject):
        return subject_answer(subject)
    try:
        return subject_answer(subject, job_service.job(tenant, subject.job_id))
    except errors.JobNotFound:
        return subject_answer(job_service.subject(tenant, subject.id))
