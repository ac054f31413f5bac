"""Jobs: how they stand, waiting for them, and calling them off."""

from __future__ import annotations

import re
import time
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response
from starlette.responses import JSONResponse

from api import schemas
from api.answers import job_answer
from api.auth import Tenant
from api.caching import NOT_MODIFIED, cacheable
from api.dependencies import Desk
from api.errors import COMMON, problems
from core import errors
from core.jobs import Job, Jobs, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=COMMON)

MAX_WAIT = 60
"""Seconds that a caller may have a read wait for the end of a job."""
LOOK_SECONDS = (0.1, 0.5)
"""Time between two looks at a job that is waited for: at first, and in the end."""


@router.get(
    "/{job_id}",
    summary="Read a job",
    response_model=schemas.JobAnswer,
    responses={
        200: {
            "headers": {
                "ETag": {"description": "Changes with the job.", "schema": {"type": "string"}},
                "Retry-After": {
                    "description": "Seconds to the next read, until it is over.",
                    "schema": {"type": "string"},
                },
                "Preference-Applied": {"description": "The wait that was granted.", "schema": {"type": "string"}},
            }
        },
        **NOT_MODIFIED,
        **problems(errors.JobNotFound, errors.BrokerUnavailable, errors.StoreUnavailable),
    },
)
async def read_job(
    job_id: str,
    request: Request,
    desk: Desk,
    tenant: Tenant,
    prefer: Annotated[str, Header(description="`wait=N`: answer when the job is over, or after N seconds (60).")] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How the job stands: state, place in the queue, stage and step, and what came of it.

    Poll with `If-None-Match` and `Retry-After`, or ask to wait with `Prefer: wait=N`; others are not held up by that.
    """
    seconds = wait_seconds(prefer)
    job = await _wait(request, desk, tenant, job_id, seconds)
    position = await to_thread.run_sync(desk.position, job) if job.state is JobState.QUEUED else None
    answer = job_answer(job, position=position)
    response = JSONResponse(answer.model_dump(mode="json"))
    if not job.state.is_final:
        response.headers["Retry-After"] = "1"
    if seconds:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return cacheable(response, if_none_match)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=problems(errors.JobNotFound, errors.JobOver, errors.BrokerUnavailable, errors.StoreUnavailable),
)
def cancel_job(job_id: str, desk: Desk, tenant: Tenant) -> schemas.JobAnswer:
    """A queued job is canceled at once, a running one stops within two steps. A job that is over is a 409."""
    return job_answer(desk.cancel(tenant, job_id))


def wait_seconds(prefer: str) -> int:
    """The `wait` of a Prefer header (RFC 7240) in whole seconds, at most MAX_WAIT; 0 without one."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})", prefer, flags=re.IGNORECASE)
    return min(int(found[1]), MAX_WAIT) if found else 0


async def _wait(request: Request, desk: Jobs, tenant: str, job_id: str, seconds: int) -> Job:
    """The job when it is over, when time is up, or when nobody is listening any more."""
    until = time.monotonic() + seconds
    pause, longest = LOOK_SECONDS
    while True:
        job: Job = await to_thread.run_sync(desk.job, tenant, job_id)
        left = until - time.monotonic()
        if job.state.is_final or left <= 0 or await request.is_disconnected():
            return job
        await anyio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
