"""The events of a job, for those who follow it. Every change writes its event in the same Lua call (lua/common.lua).

hdb:{tenant}:events:{job}     stream: the last 200 events and some more; gone a day after the last one

Events are numbered: `version` counts up by one with each of them. The job's record keeps the last event's id, so that
this event can be made again when the stream is gone, and no follower gets it twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from core.records import Count, Job, JobState, Moment, Preview, Record

MOST_EVENTS = 400
"""More than a stream holds: it is cut in blocks of a hundred."""
EVENT_ID = "([0-9]{1,18})-([0-9]{1,18})"
"""An event's id, as a pattern: more digits than Redis gives, and fewer than it refuses as an id."""


class EventType(StrEnum):
    """What happened; the last four end the stream."""

    QUEUED = "queued"
    """Accepted, or back in the queue after an attempt that was cut off."""
    RUNNING = "running"
    """A worker has begun an attempt."""
    PROGRESS = "progress"
    """A step is done; the first and last of a stage, and at most four a second between them."""
    PREVIEW = "preview"
    """The first weights can be used, and a picture of them seen."""
    CANCEL_REQUESTED = "cancel_requested"
    """A running job was asked to stop."""
    SUCCEEDED = "succeeded"
    """The result is there."""
    FAILED = "failed"
    """It ended without a result."""
    CANCELED = "canceled"
    """It has stopped."""
    DELETED = "deleted"
    """The job was erased with its subject; this event is in no stream."""

    @property
    def is_last(self) -> bool:
        """Nothing comes after it."""
        return self in (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELED, EventType.DELETED)


class Event(Record):
    """Something that happened to a job, with how the job stood then. `version` is its number."""

    id: str
    type: EventType
    version: Count
    at: Moment
    state: JobState
    attempt: Count = 0
    stage: str = ""
    step: Count = 0
    total: Count = 0
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    seconds_left: Moment | None = None
    preview: Preview | None = None


def event_key(ref: str) -> str:
    """The stream of a job, "tenant/id"."""
    tenant, _, job_id = ref.partition("/")
    return f"hdb:{tenant}:events:{job_id}"


def order_of(event_id: str) -> tuple[int, int]:
    """What events are sorted by. Raises ValueError when `event_id` is not an event's id."""
    found = re.fullmatch(EVENT_ID, event_id)
    if found is None:
        raise ValueError("not an event's id")
    return int(found[1]), int(found[2])


def read_event(event_id: str, fields: Mapping[str, str]) -> Event:
    """An event from the fields of its entry in the stream. Raises ValueError and KeyError for what is none."""
    order_of(event_id)
    return Event(
        id=event_id,
        type=_type_of(fields["event"], JobState(fields["state"])),
        version=int(fields["version"]),
        at=int(fields["at"]) / 1000,
        state=JobState(fields["state"]),
        attempt=int(fields["attempt"]),
        stage=fields["stage"],
        step=int(fields["step"]),
        total=int(fields["total"]),
        share=float(fields.get("share") or 0.0),
        seconds_left=float(fields["seconds_left"]) if fields.get("seconds_left") else None,
        preview=Preview.model_validate_json(fields["preview"]) if fields.get("preview") else None,
    )


def last_event(job: Job) -> Event:
    """The last thing that happened to a job, from its record."""
    times = (job.finished_at, job.started_at, job.created_at)
    return Event(
        id=job.event_id,
        type=EventType(job.state.value),
        version=job.version,
        at=next(time for time in times if time is not None),
        state=job.state,
        attempt=job.attempt,
        stage=job.stage,
        step=job.step,
        total=job.total,
        share=job.share,
        seconds_left=job.seconds_left,
    )


def _type_of(event: str, state: JobState) -> EventType:
    """Lua names what has changed; a changed state is the new state's event."""
    return EventType(state.value) if event == "state" else EventType(event)
