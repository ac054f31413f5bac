"""Generations: a prompt and a subject become pictures."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from api.server.auth import Tenant
from api.server.dependencies import JobServiceDep, RequestIdDep, SubjectServiceDep
from api.server.errors import COMMON, problems
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.requests import GENERATION_ERRORS, JsonOnly, generate_request
from api.server.responses import job_answer
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/generations", tags=["generations"], responses=COMMON, route_class=IdempotentRoute)


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
    body: schemas.GenerationRequest,
    response: Response,
    jobs: JobServiceDep,
    subjects: SubjectServiceDep,
    tenant: Tenant,
    request_id: RequestIdDep,
) -> schemas.JobAnswer:
    """Answers with a job; when it has succeeded, its `images` say where the pictures are.

    A subject that is still personalizing is a 409: nothing is queued behind work that may fail. `stage=preview` takes
    the weights of the latest preview, as soon as there is one (`preview_ready`): those that the hypernetwork predicted,
    a moment after personalizing has begun, and then those after a third of it. Should
    personalizing come to nothing before the pictures are made, the job fails.

    A `blend` mixes two to eight subjects: the weighted sum of their changes. Its pictures are erased when any of its
    subjects is deleted.
    """
    request, warnings = generate_request(body, partial(subjects.get, tenant))
    job = subjects.generate(tenant, request, request_id=request_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_answer(job, position=jobs.position(job), warnings=warnings)
