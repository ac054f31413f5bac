"""Subjects: photos of a face become weights that pictures can be made with."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.server.auth import Personalizes, Tenant
from api.server.checked_photos import check_all, read_choices
from api.server.dependencies import JobServiceDep, NewIdsDep, PhotoCheckerDep, RequestIdDep, SubjectServiceDep
from api.server.errors import COMMON, InvalidFields, problems
from api.server.forms import PHOTO_ERRORS, photo_form, read_fields
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.limits import charge_work
from api.server.responses import receipt_answer, subject_answer
from api.server.uploads import read_form
from core import errors
from core.ids import is_id
from core.records import Consent, PersonalizeRequest
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/subjects", tags=["subjects"], responses=COMMON, route_class=IdempotentRoute)

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
    summary="Personalize from a photo",
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
    subjects: SubjectServiceDep,
    tenant: Tenant,
    check_photo: PhotoCheckerDep,
    request_id: RequestIdDep,
    ids: NewIdsDep,
) -> schemas.SubjectAnswer:
    """Send one or more photos of the same person, and their consent. Personalizing starts at once.

    Each photo is checked before anything is stored: a refused one says why. Only the aligned face is stored, made anew
    from pixels, and only until personalizing ends, unless `keep_photos` is `true`. Follow `links.job`, or ask for the
    subject again.
    """
    form = await read_form(request)
    fields, options = read_fields(form, schemas.SubjectForm)
    choices = read_choices(fields.face, len(form.photos))
    checked = await check_all(request, form.photos, choices, check_photo)
    await charge_work(request, PersonalizeRequest(subject_id="", photos=("",) * len(form.photos), steps=options.steps))
    subject, job = await to_thread.run_sync(
        partial(
            subjects.create,
            tenant,
            checked.crops,
            consent=Consent(at=time.time(), version=schemas.CONSENT_VERSION),
            name=fields.name,
            class_noun=fields.class_noun,
            keep_photos=bool(fields.keep_photos),
            warnings=checked.warnings,
            request_id=request_id,
            ids=ids,
            **options.model_dump(),
        )
    )
    response.headers["Location"] = f"/v1/subjects/{subject.id}"
    return subject_answer(subject, job)


@router.get("", summary="List subjects", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
def list_subjects(
    subjects: SubjectServiceDep,
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
    """The subjects, newest first, a page at a time. How far personalizing is stands in each subject's own document."""
    if cursor and not is_id(cursor, "sub"):
        raise InvalidFields(
            [schemas.FieldProblem(field="cursor", message="Send the next_cursor of a page, unchanged.")]
        )
    found = subjects.page(tenant, limit=limit + 1, after=cursor)
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
def read_subject(
    subject_id: str, subjects: SubjectServiceDep, jobs: JobServiceDep, tenant: Tenant
) -> schemas.SubjectAnswer:
    """The progress of personalizing, and what came of it."""
    subject = subjects.get(tenant, subject_id)
    if not subject.is_busy:
        return subject_answer(subject)
    try:
        return subject_answer(subject, jobs.get(tenant, subject.job_id))
    except errors.JobNotFound:  # what has become of it in the moment between the two reads
        return subject_answer(subjects.get(tenant, subject_id))


@router.delete(
    "/{subject_id}",
    status_code=202,
    summary="Delete a subject",
    responses=problems(errors.SubjectNotFound, errors.StoreUnavailable),
)
def delete_subject(subject_id: str, subjects: SubjectServiceDep, tenant: Tenant) -> schemas.DeletionReceipt:
    """Erases photo, weights, images and jobs, also while a job is running: it stops, and its result is dropped.

    From then on everything of the subject is 404. Deleting it again gives the same receipt for 24 hours.
    """
    return receipt_answer(subjects.delete(tenant, subject_id))
