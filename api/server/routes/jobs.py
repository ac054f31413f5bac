"""Jobs: how they stand, waiting for them, and calling them off."""

from __future__ import annotations

import re
import time
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request, Response

from api.server.auth import Tenant
from api.server.dependencies import JobServiceDep
from api.server.errors import COMMON, InvalidFields, problems
from api.server.job_reader import JobReader
from api.server.responses import NOT_MODIFIED, cache_headers, etag, job_answer, matches
from core import errors
from core.ids import is_id
from core.jobs.pages import JobFilter
from core.jobs.redis_records import QueuedJob
from core.records import Job, JobKind, JobState
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=COMMON)

MAX_WAIT = 60
"""Seconds that a caller may have a read wait for the end of a job."""
POLL_SECONDS = (0.05, 0.15)
"""Seconds between two reads of a job that is waited for: at first, and in the end."""


@router.get(
    "",
    summary="List jobs",
    responses=problems(errors.InvalidInput, errors.BrokerUnavailable, errors.StoreUnavailable),
)
def list_jobs(
    jobs: JobServiceDep,
    tenant: Tenant,
    status: Annotated[schemas.JobStatus | None, Query(description="Only jobs with this status.")] = None,
    kind: Annotated[schemas.JobKind | None, Query(description="Only jobs of this kind.")] = None,
    subject_id: Annotated[str | None, Query(description="Only jobs of this subject.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[
        str,
        Query(
            description="The `next_cursor` of the page before.",
            json_schema_extra={"pattern": "^(job_[0-9a-z]{25})?$"},
        ),
    ] = "",
) -> schemas.JobPage:
    """The jobs, newest first, a page at a time. Jobs of subjects that were deleted are not there any more."""
    _refuse_other_ids(subject_id, cursor)
    matching = JobFilter(JobState(status) if status else None, JobKind(kind) if kind else None, subject_id)
    page = jobs.page(tenant, matching, limit=limit, after=cursor)
    return schemas.JobPage(
        jobs=[job_answer(job, position=position) for job, position in page.jobs], next_cursor=page.after
    )


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
    tenant: Tenant,
    prefer: Annotated[str, Header(description="`wait=N`: answer when the job is over, or after N seconds (60).")] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How the job stands: state, place in the queue, stage and step, and what came of it.

    Poll with `If-None-Match` and `Retry-After`, or ask to wait with `Prefer: wait=N`; others are not held up by that.
    """
    seconds = wait_seconds(prefer)
    job_reader: JobReader = request.app.state.job_reader  # a dependency would take a twentieth of the time
    job, position = await _wait(request, job_reader, tenant, job_id, seconds)
    tag = tag_of(job, position)
    headers = cache_headers(tag)
    if not job.state.is_final:
        headers["Retry-After"] = "1"
    if seconds:
        headers["Preference-Applied"] = f"wait={seconds}"
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    answer = job_answer(job, position=position)
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=problems(errors.JobNotFound, errors.JobOver, errors.BrokerUnavailable, errors.StoreUnavailable),
)
def cancel_job(job_id: str, jobs: JobServiceDep, tenant: Tenant) -> schemas.JobAnswer:
    """A queued job is canceled at once, a running one stops within two steps. A job that is over is a 409."""
    return job_answer(jobs.cancel(tenant, job_id))


def tag_of(job: Job, position: int | None) -> str:
    """The ETag of a job as it stands: from what changes, so that telling that nothing did costs no answer."""
    return etag(
        f"{job.version} {job.fence} {job.state} {job.stage} {job.step} {job.total} {job.share} {position}".encode()
    )


def wait_seconds(prefer: str) -> int:
    """The `wait` of a Prefer header (RFC 7240) in whole seconds, at most MAX_WAIT; 0 without one."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})", prefer, flags=re.IGNORECASE)
    return min(int(found[1]), MAX_WAIT) if found else 0


def _refuse_other_ids(subject_id: str | None, cursor: str) -> None:
    if subject_id is not None and not is_id(subject_id, "sub"):
        raise InvalidFields([schemas.FieldProblem(field="subject_id", message="Send the id of a subject.")])
    if cursor and not is_id(cursor, "job"):
        raise InvalidFields(
            [schemas.FieldProblem(field="cursor", message="Send the next_cursor of a page, unchanged.")]
        )


async def _wait(request: Request, job_reader: JobReader, tenant: str, job_id: str, seconds: int) -> QueuedJob:
    """The job and its position when it is over, when time is up, or when the client has disconnected."""
    until = time.monotonic() + seconds
    pause, longest = POLL_SECONDS
    while True:
        found = await job_reader.read(tenant, job_id)
        left = until - time.monotonic()
        if found.job.state.is_final or left <= 0 or await request.is_disconnected():
            return found
        await anyio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
