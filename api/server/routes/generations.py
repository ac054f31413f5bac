"""Generations: a prompt and a subject become pictures."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from api.server.auth import Tenant
from api.server.dependencies import JobService, RequestIdOf
from api.server.errors import COMMON, problems
from api.server.idempotency import Idempotent
from api.server.json_only import JsonOnly
from api.server.requests import GENERATION_ERRORS, generate_request
from api.server.responses import job_answer
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/generations", tags=["generations"], responses=COMMON)


@router.post(
    "",
    status_code=202,
    summary="Make pictures of a subject, or of a blend",
    dependencies=[JsonOnly, Idempotent],
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **problems(*GENERATION_ERRORS),
    },
)
def create_generation(
    asked: schemas.GenerationRequest,
    response: Response,
    job_service: JobService,
    tenant: Tenant,
    request_id: RequestIdOf,
) -> schemas.JobAnswer:
    """Answers with a job; when it has succeeded, its `images` say where the pictures are.

    A subject that is still personalising is a 409: nothing is queued behind work that may fail. `stage=preview` takes
    the weights of the latest preview, as soon as there is one (`preview_ready`): those that the hypernetwork predicted,
    a moment after personalising has begun, and then those after a third of it. Should
    personalising come to nothing before the pictures are made, the job fails.

    A `blend` mixes two to eight subjects: the weighted sum of their changes. Its pictures are erased when any of its
    subjects is deleted.
    """
    request, warnings = generate_request(asked, partial(job_service.subject, tenant))
    job = job_service.create_generation(tenant, request, request_id=request_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_answer(job, position=job_service.position(job), warnings=warnings)
