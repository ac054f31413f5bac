"""More photos of somebody who is here already."""

from __future__ import annotations

import time
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api.server.auth import Personalizes, Tenant
from api.server.dependencies import Finder, JobService, RequestIdOf
from api.server.errors import COMMON, problems
from api.server.forms import PHOTO_ERRORS, crop_all, photo_form, read_fields
from api.server.idempotency import Idempotent
from api.server.responses import subject_answer
from api.server.uploads import read_form
from core import errors
from core.records import Consent
from core.subjects import add_photos as photos
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/subjects", tags=["subjects"], responses=COMMON)


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
    job_service: JobService,
    tenant: Tenant,
    find_face: Finder,
    request_id: RequestIdOf,
) -> schemas.SubjectAnswer:
    """More photos of the same person, and their consent: a new job makes new weights of them.

    Photos that were kept (`keep_photos`) are learnt from again, together with these; without any, the subject's present
    weights are the start. Until the job has succeeded the subject goes on with the weights it has, also when it fails.
    A subject whose personalising failed begins anew.
    """
    subject = await to_thread.run_sync(job_service.subject, tenant, subject_id)
    form = await read_form(request)
    fields, options = read_fields(form, schemas.PhotosForm)
    photos.refuse(subject, len(form.photos))  # before the work; again, and for good, when they are added
    crops = await crop_all(form.photos, find_face, request.app.state.decoders)
    subject, job = await to_thread.run_sync(
        partial(
            photos.add_photos,
            job_service,
            tenant,
            subject_id,
            crops,
            consent=Consent(at=time.time(), version=schemas.CONSENT_VERSION),
            keep_photos=None if fields.keep_photos is None else fields.keep_photos == "true",
            request_id=request_id,
            **options.model_dump(),
        )
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return subject_answer(subject, job)
