"""Photos: what a check of them finds, and more photos of a subject that is there already."""

from __future__ import annotations

import time
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api.server.auth import ChecksPhotos, Personalizes, Tenant
from api.server.checked_photos import (
    CheckedPhoto,
    check_all,
    compare_all,
    crop_as_url,
    faces_of,
    problems_of,
    read_choices,
    warnings_of,
)
from api.server.dependencies import NewIdsDep, PhotoCheckerDep, RequestIdDep, ServicesDep
from api.server.errors import COMMON, problems
from api.server.forms import CHECK_ERRORS, CHECK_FORM, PHOTO_ERRORS, photo_form, read_fields, validated
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.responses import subject_answer
from api.server.uploads import read_form
from core import errors
from core.records import Consent
from core.subjects.photos import refuse
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1", tags=["subjects"], responses=COMMON, route_class=IdempotentRoute)


@router.post(
    "/subjects/{subject_id}/photos",
    status_code=202,
    summary="Send more photos of a subject",
    dependencies=[Idempotent, Personalizes],
    openapi_extra=photo_form({"options": {"steps": 50}}),
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **problems(*PHOTO_ERRORS, errors.SubjectNotFound, errors.SubjectBusy),
    },
)
async def add_photos(
    subject_id: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    tenant: Tenant,
    check_photo: PhotoCheckerDep,
    request_id: RequestIdDep,
    ids: NewIdsDep,
) -> schemas.SubjectAnswer:
    """More photos of the same person, and their consent: a new job makes new weights of them.

    Photos that were kept (`keep_photos`) are learnt from again with these, which must show the same person; without
    any, the subject's present weights are the start. Until the job has succeeded the subject goes on with the weights
    it has, also when it fails. A subject whose personalizing failed begins anew.
    """
    subject = await to_thread.run_sync(services.subjects.get, tenant, subject_id)
    form = await read_form(request)
    fields, options = read_fields(form, schemas.PhotosForm)
    if not ids.repeated:
        refuse(subject, len(form.photos))  # before the work; again, and for good, when they are added
    choices = read_choices(fields.face, len(form.photos))
    checked = await check_all(request, form.photos, choices, check_photo, services.photos.kept(subject))
    subject, job = await to_thread.run_sync(
        partial(
            services.photos.add,
            tenant,
            subject_id,
            checked.crops,
            consent=Consent(at=time.time(), version=schemas.CONSENT_VERSION),
            keep_photos=fields.keep_photos,
            warnings=checked.warnings,
            request_id=request_id,
            ids=ids,
            **options.model_dump(),
        )
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return subject_answer(subject, job)


@router.post(
    "/photos/check",
    summary="Check photos",
    dependencies=[ChecksPhotos],
    openapi_extra=CHECK_FORM,
    responses=problems(*CHECK_ERRORS),
)
async def check_photos(request: Request, tenant: Tenant, check_photo: PhotoCheckerDep) -> schemas.PhotosChecked:  # noqa: ARG001  (only callers with a key)
    """What would be made of these photos of one person. Nothing is stored, and no consent is needed.

    For each photo, in the order sent: the faces in it, the one that is meant, the crop that would be learned from,
    every reason against it with advice, and what its use will cost. A photo that cannot even be decoded has that as
    its reason.
    """
    form = await read_form(request)
    choices = read_choices(validated(form, schemas.CheckForm).face, len(form.photos))
    checked = await compare_all(request, form.photos, choices, check_photo)
    answers = [_answer(number, photo) for number, photo in enumerate(checked)]
    return schemas.PhotosChecked(accepted=all(each.accepted for each in answers), photos=answers)


def _answer(number: int, photo: CheckedPhoto) -> schemas.PhotoCheckAnswer:
    reasons = problems_of(number, photo)
    return schemas.PhotoCheckAnswer(
        accepted=not reasons,
        faces=faces_of(photo),
        face=photo.check.number,
        crop=crop_as_url(photo.crop) if photo.crop else None,
        reasons=reasons,
        warnings=warnings_of(number, photo),
    )
