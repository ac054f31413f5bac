"""Generations: a prompt and a subject become pictures."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api.server.auth import Tenant
from api.server.dependencies import JobServiceDep, RequestIdDep, SubjectServiceDep
from api.server.errors import COMMON, problems
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.limits import charge_work
from api.server.model import ModelDep
from api.server.pending_responses import ids_of
from api.server.requests import GENERATION_ERRORS, JsonOnly, generate_request
from api.server.responses import job_answer
from core.records import GenerateRequest
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
async def create_generation(
    http: Request,
    body: schemas.GenerationRequest,
    response: Response,
    jobs: JobServiceDep,
    subjects: SubjectServiceDep,
    tenant: Tenant,
    request_id: RequestIdDep,
    model: ModelDep,
) -> schemas.JobAnswer:
    """Answers with a job; when it has succeeded, its `images` say where the pictures are.

    A subject that is still personalizing is a 409: nothing is queued behind work that may fail. `stage=preview` takes
    the weights of the latest preview, as soon as there is one (`preview_ready`): those that the hypernetwork predicted,
    a moment after personalizing has begun, and then those after a third of it. Should
    personalizing come to nothing before the pictures are made, the job fails.

    `warnings` name what the model does not hear of the prompts, and sizes that it makes badly.

    A `blend` mixes two to eight subjects: the weighted sum of their changes. Its pictures are erased when any of its
    subjects is deleted.
    """

    def check() -> tuple[GenerateRequest, list[schemas.RequestWarning]]:
        return generate_request(body, partial(subjects.get, tenant), model())

    request, warnings = await to_thread.run_sync(check)
    await charge_work(http, request)

    def accept() -> schemas.JobAnswer:
        job = subjects.generate(tenant, request, request_id=request_id, ids=ids_of(http))
        return job_answer(job, position=jobs.position(job), warnings=warnings)

    answer = await to_thread.run_sync(accept)
    response.headers["Location"] = f"/v1/jobs/{answer.id}"
    return answer
