"""Generations: a prompt and a subject become pictures."""

from __future__ import annotations

import re
import secrets

from fastapi import APIRouter, Response

from api import schemas
from api.answers import job_answer
from api.auth import Tenant
from api.dependencies import Desk, RequestIdOf
from api.errors import COMMON, MalformedRequest, problems
from api.idempotency import Idempotent
from api.json_only import JsonOnly
from core import errors
from core.jobs import GenerateRequest, WeightsStage

router = APIRouter(prefix="/v1/generations", tags=["generations"], responses=COMMON)


@router.post(
    "",
    status_code=202,
    summary="Make pictures of a subject",
    dependencies=[JsonOnly, Idempotent],
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **problems(
            MalformedRequest,
            errors.SubjectNotFound,
            errors.SubjectNotReady,
            errors.UploadTooLarge,
            errors.UnsupportedMediaType,
            errors.InvalidInput,
            errors.QueueFull,
            errors.BrokerUnavailable,
            errors.StoreUnavailable,
        ),
    },
)
def create_generation(
    asked: schemas.GenerationRequest,
    response: Response,
    desk: Desk,
    tenant: Tenant,
    request_id: RequestIdOf,
) -> schemas.JobAnswer:
    """Answers with a job; when it has succeeded, its `images` say where the pictures are.

    A subject that is still personalising is a 409: nothing is queued behind work that may fail. `stage=preview` takes
    the weights that the hypernetwork predicted, as soon as the subject has them (`preview_ready`): a moment after its
    personalising has begun. Should that come to nothing before the pictures are made, the job fails.
    """
    subject = desk.subject(tenant, asked.subject_id)
    prompt, warnings = with_placeholder(asked.prompt, subject.class_noun or "face")
    seed = secrets.randbelow(schemas.MAX_SEED + 1) if asked.seed is None else asked.seed
    changes = {"prompt": prompt, "seed": seed, "stage": WeightsStage(asked.stage)}
    request = GenerateRequest.model_validate(asked.model_dump() | changes)
    job = desk.create_generation(tenant, request, request_id=request_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_answer(job, position=desk.position(job), warnings=warnings)


def with_placeholder(prompt: str, class_noun: str) -> tuple[str, list[str]]:
    """A prompt that names the person as `[V]`, and what has to be said about it when it did not."""
    marked = re.sub(r"\[v\]", schemas.PLACEHOLDER, prompt, flags=re.IGNORECASE)
    if schemas.PLACEHOLDER in marked:
        return marked, []
    added = f"{prompt} of a {schemas.PLACEHOLDER} {class_noun}"
    return added, [f'The prompt has no {schemas.PLACEHOLDER}; " of a {schemas.PLACEHOLDER} {class_noun}" was added.']
