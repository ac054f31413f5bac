"""Events: what happens to a job, as it happens."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Response

from api.server.auth import Tenant
from api.server.dependencies import FeedDep, JobServiceDep
from api.server.errors import COMMON, InvalidFields, problems
from api.server.event_stream import FIRST, EventStream, event_lines
from core import errors
from core.jobs.events import EVENT_ID, order_of
from core.records import Job
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=COMMON)

_AT = f'"job_id":"{schemas.JOB_ID}"'
_EXAMPLE = f"""retry: 1000

id: 1714818030120-0
event: queued
data: {{"type":"queued",{_AT},"version":1,"at":"2024-05-04T10:20:30.120000Z","status":"queued","attempt":0}}

id: 1714818031007-0
event: running
data: {{"type":"running",{_AT},"version":2,"at":"2024-05-04T10:20:31.007000Z","status":"running","attempt":1}}

id: 1714818031911-0
event: progress
data: {{"type":"progress",{_AT},"version":3,"at":"2024-05-04T10:20:31.911000Z","status":"running","attempt":1,\
"stage":"finetune","step":4,"total":40}}

: still here

"""
_ITEM: dict[str, Any] = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"$ref": "#/components/schemas/JobEventType"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobEvent"},
        },
    },
}
"""One event, as OpenAPI 3.2 describes those of a stream."""
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: a text; for clients that read it event by event, a `JobEvent` each.",
        "content": {
            "text/event-stream": {
                "schema": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/JobEvent"}]},
                "itemSchema": _ITEM,
                "example": _EXAMPLE,
            }
        },
    },
    204: {
        "description": "The event in `Last-Event-ID` was the last one: nothing comes after it, do not connect again."
    },
}


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        **_STREAM,
        **problems(
            errors.JobNotFound,
            errors.InvalidInput,
            errors.TooManyFollowers,
            errors.BrokerUnavailable,
            errors.StoreUnavailable,
        ),
    },
)
async def follow_job(
    job_id: str,
    jobs: JobServiceDep,
    feed: FeedDep,
    tenant: Tenant,
    last_event_id: Annotated[
        str,
        Header(
            description="The `id` of the last event that was seen.",
            json_schema_extra={"pattern": f"^({EVENT_ID})?$"},
        ),
    ] = "",
) -> Response:
    """The job's events from its beginning, or those after `Last-Event-ID`, until the one that says how it ended.

    `queued`, `running`, `progress` (at most four a second), `preview` (a picture so far), `cancel_requested`, and as
    the last one `succeeded`, `failed`, `canceled`, or `deleted` when the job was erased with its subject. A comment
    comes after 15 s of silence. After 15 minutes the stream ends: connect again with `Last-Event-ID`, as browsers do by
    themselves, and nothing is missed.

    The last 200 events are kept, for a day; after that there is one that says how the job ended.
    """
    after = _seen(last_event_id)
    feed.refuse_too_many()
    job: Job = await to_thread.run_sync(jobs.get, tenant, job_id)
    if job.state.is_final and job.event_id == after:
        return Response(status_code=204)
    return EventStream(event_lines(feed, jobs, job, after))


def _seen(last_event_id: str) -> str:
    """Raises InvalidFields for what is not an event's id."""
    try:
        return "{}-{}".format(*order_of(last_event_id or FIRST))
    except ValueError:
        problem = schemas.FieldProblem(field="Last-Event-ID", message="Send the id of an event, or nothing.")
        raise InvalidFields([problem]) from None
