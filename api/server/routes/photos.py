"""More photos of a subject that is there already."""

from __future__ import annotations

import time
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api.server.auth import Personalizes, Tenant
from api.server.checked_photos import check_all, read_choices
from api.server.dependencies import PhotoCheckerDep, RequestIdDep, ServicesDep
from api.server.errors import COMMON, problems
from api.server.forms import PHOTO_ERRORS, photo_form, read_fields
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.responses import subject_answer
from api.server.uploads import read_form
from core import errors
from core.records import Consent
from core.subjects.photos import refuse
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/subjects", tags=["subjects"], responses=COMMON, route_class=IdempotentRoute)


@router.post(
    "/{subject_id}/photos",
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
) -> schemas.SubjectAnswer:
    """More photos of the same person, and their consent: a new job makes new weights of them.

    Photos that were kept (`keep_photos`) are learnt from again with these; without any, the subject's present
    weights are the start. Until the job has succeeded the subject goes on with the weights it has, also when it fails.
    A subject whose personalizing failed begins anew.
    """
    subject = await to_thread.run_sync(services.subjects.get, tenant, subject_id)
    form = await read_form(request)
    fields, options = read_fields(form, schemas.PhotosForm)
    refuse(subject, len(form.photos))  # before the work; again, and for good, when they are added
    choices = read_choices(fields.face, len(form.photos))
    checked = await check_all(request, form.photos, choices, check_photo)
    subject, job = await to_thread.run_sync(
        partial(
            services.photos.add,
            tenant,
            subject_id,
            checked.crops,
            consent=Consent(at=time.time(), version=schemas.CONSENT_VERSION),
            keep_photos=None if fields.keep_photos is None else fields.keep_photos == "true",
            request_id=request_id,
            **options.model_dump(),
        )
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return subject_answer(subject, job, warnings=checked.warnings)
