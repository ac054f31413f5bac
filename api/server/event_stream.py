"""The events of a job as a stream of server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from anyio import to_thread
from starlette.responses import StreamingResponse
from starlette.types import Send

from api.server.event_reader import EventReader, Feed
from api.server.responses import image_answer, job_answer, overall
from core.errors import JobNotFound, Unavailable
from core.ids import is_id
from core.jobs.events import Event, EventType, last_event, order_of
from core.jobs.service import JobService
from core.records import Image, Job, JobState
from core.storage.keys import job_of_image
from hyperdreambooth import schemas

KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, and the job's record is read in case an event was missed."""
MOST_SECONDS = 900.0
"""After so long a stream ends, and the client connects again: a revoked key must not follow for ever."""
RETRY_MILLISECONDS = 1000
FIRST = "0-0"
"""The id before all events."""


class EventStream(StreamingResponse):
    """Server-sent events that are closed with their connection."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[str, None]) -> None:
        """`content` is text as `to_text` returns it."""
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._content = content

    async def stream_response(self, send: Send) -> None:
        """See StreamingResponse."""
        async with aclosing(self._content):
            await super().stream_response(send)


async def event_lines(feed: Feed, jobs: JobService, job: Job, after: str) -> AsyncGenerator[str, None]:
    """The job's events after the event `after` as text/event-stream, until the last one or MOST_SECONDS."""
    until = time.monotonic() + MOST_SECONDS
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    async with feed.follow() as reader, aclosing(follow(reader, jobs, job, after)) as events:
        async for event in events:
            if event is None:
                yield ": still here\n\n"
            else:
                yield to_text(event.id, await to_thread.run_sync(event_answer, jobs, job, event))
            if feed.is_ending or time.monotonic() > until:
                return


async def follow(reader: EventReader, jobs: JobService, job: Job, after: str) -> AsyncGenerator[Event | None, None]:
    """The job's events after the event `after`, until the last one; None after KEEP_ALIVE_SECONDS without an event.

    `job` is its record as it was before this is called.
    """
    record: Job | None = job
    while True:
        if record is None:
            events = await reader.next(job.ref, after, KEEP_ALIVE_SECONDS)
        else:
            found = await reader.now(job.ref, after)
            events = found or _missed_end(record, after, stream_is_known=found is not None)
        for event in events:
            yield event
            after = event.id or after
            if event.type.is_last:
                return
        if record and record.state.is_final and not events:
            return
        if events or record:
            record = None
            continue
        yield None
        try:
            record = await to_thread.run_sync(jobs.get, job.tenant, job.id)
        except JobNotFound:
            yield _deletion()
            return
        except Unavailable:
            record = None


def to_text(event_id: str, event: schemas.JobEvent) -> str:
    """One event as text/event-stream."""
    name = f"id: {event_id}\n" if event_id else ""
    return f"{name}event: {event.type}\ndata: {event.model_dump_json(exclude_none=True)}\n\n"


def event_answer(jobs: JobService, job: Job, event: Event) -> schemas.JobEvent:
    """An event as the API sends it; the last one has the job in it."""
    return schemas.JobEvent(
        type=event.type,
        job_id=job.id,
        version=event.version,
        at=datetime.fromtimestamp(event.at, UTC),
        status=event.state,
        attempt=event.attempt,
        stage=event.stage or None,
        step=event.step if event.stage else None,
        total=event.total or None,
        **overall(event.state, event.share, event.seconds_left),
        preview=image_answer(event.preview.image) if event.preview and _is_of(job, event.preview.image) else None,
        job=_ended_job(jobs, job) if event.type.is_last and event.type is not EventType.DELETED else None,
    )


def _is_of(job: Job, image: Image) -> bool:
    return is_id(image.id, "img") and job_of_image(image.id) == job.id


def _ended_job(jobs: JobService, job: Job) -> schemas.JobAnswer | None:
    """The job that has ended; None when it cannot be read at this moment, or was deleted meanwhile."""
    try:
        return job_answer(jobs.get(job.tenant, job.id))
    except (JobNotFound, Unavailable):
        return None


def _missed_end(record: Job, after: str, *, stream_is_known: bool) -> list[Event]:
    """The last event, made from the record, when the stream no longer has it and the client has not seen it.

    In an outage of Redis the stream is unknown, but a final state is certain.
    """
    if record.event_id == after or not (record.event_id or record.state.is_final):
        return []
    is_later = record.state.is_final or (stream_is_known and order_of(record.event_id) > order_of(after))
    return [last_event(record)] if is_later else []


def _deletion() -> Event:
    return Event(id="", type=EventType.DELETED, version=0, at=time.time(), state=JobState.CANCELED)
