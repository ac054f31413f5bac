"""Waiting for a job, without doing it: what to ask next, what the answers come to, when it has taken too long."""

from __future__ import annotations

import time

import httpx

from hyperdreambooth import schemas
from hyperdreambooth.client import calls
from hyperdreambooth.client.call import Call
from hyperdreambooth.client.calls import JobRef
from hyperdreambooth.client.events import Event, EventParser
from hyperdreambooth.client.problem import JobFailed, Problem, unexpected
from hyperdreambooth.schemas import JobStatus

LONGEST_WAIT = 20
"""Seconds of one read that waits for the end: short enough for proxies."""
SILENCE = 20.0
"""Seconds that a stream of events may be silent; the service says something every 15."""
INTERVAL = 0.5
"""Seconds between two reads of a job whose progress is told."""
BATCH_INTERVAL = 2.0
"""Seconds between two reads of a batch."""
NO_EVENTS = frozenset({"not-found", "too-many-followers"})
"""Codes of a service that has no events, or not for one more."""

_TOLD = {"status", "attempt", "stage", "step", "total"}


class Deadline:
    """Until when somebody waits."""

    def __init__(self, seconds: float | None, what: str = "") -> None:
        """So many seconds from now on; None: for ever. `what` is the id of what is waited for."""
        self._seconds = seconds
        self._what = what
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """Seconds that are left, at most `most`. Raises TimeoutError when there are none."""
        if self._end is None:
            return most
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{self._what} is not over after {self._seconds:g} s; it goes on.")
        return min(left, most)


FOR_EVER = Deadline(None)


class Watch:
    """A job that is waited for: looked at again and again, or heard of by its events."""

    def __init__(self, job: JobRef, timeout: float | None) -> None:
        """`timeout` in seconds; None: as long as it takes."""
        self.job = calls.job_id(job)
        self.deadline = Deadline(timeout, self.job)
        self._etag = ""
        self._is_behind = True
        self._seen: schemas.JobAnswer | None = None

    @property
    def is_over(self) -> bool:
        """Nothing will change any more."""
        return self._seen is not None and self._seen.status.is_final

    def look(self, *, patiently: bool) -> Call[tuple[schemas.JobAnswer | None, str]]:
        """The next read: it waits for the job's end, or asks for what is new. Raises TimeoutError."""
        wait = max(1, round(self.deadline.left(LONGEST_WAIT))) if patiently else 0
        return calls.changed_job(self.job, self._etag, wait=wait)

    def saw(self, found: tuple[schemas.JobAnswer | None, str]) -> schemas.JobAnswer | None:
        """The job when it has changed."""
        job, self._etag = found
        self._seen = job or self._seen
        return job

    def heard(self, event: Event) -> schemas.JobAnswer | None:
        """The job when the event has changed it. What had happened before the first look is not told once more."""
        before = self._seen
        if before is None or event.job:
            self._seen = event.job
        elif self._has_caught_up(event, before) and not event.type.is_last:
            told = event.model_dump(include=_TOLD) | ({"preview": event.preview} if event.preview else {})
            self._seen = before.model_copy(update=told)
        return None if self._seen == before else self._seen

    def _has_caught_up(self, event: Event, seen: schemas.JobAnswer) -> bool:
        """Whether this event, or one before it, is as new as the first look."""
        at_the_same = (event.attempt, event.status, event.stage) == (seen.attempt, seen.status, seen.stage)
        is_as_far = at_the_same and (event.step or 0) >= (seen.step or 0)
        self._is_behind = self._is_behind and event.attempt <= seen.attempt and not is_as_far
        return not self._is_behind

    def pause(self) -> float:
        """Seconds to the next look. Raises TimeoutError."""
        return self.deadline.left(INTERVAL)

    def result(self) -> schemas.JobAnswer:
        """The job that has succeeded. Raises JobFailed when it has not."""
        assert self._seen is not None
        if self._seen.status is not JobStatus.SUCCEEDED:
            raise JobFailed(self._seen)
        return self._seen


class Following:
    """The events of a job over as many connections as it takes, without a gap."""

    def __init__(self, job: JobRef, last_event_id: str = "", waiting: Deadline | None = None) -> None:
        """`waiting`: for somebody who waits for the job, until then, and can go without a stream that is silent."""
        self._job = calls.job_id(job)
        self._deadline = waiting or FOR_EVER
        self._can_go_without = waiting is not None
        self._parser = EventParser(last_event_id)
        self.is_over = False

    def connect(self) -> Call[httpx.Response]:
        """The next connection. Raises TimeoutError."""
        self._parser.begin()
        self._is_silent = True
        return calls.events(self._job, self._parser.last_event_id, self._deadline.left(SILENCE))

    def check(self, answer: httpx.Response) -> None:
        """Look at an answer's head. Raises Problem when these are no events."""
        if answer.status_code == httpx.codes.NO_CONTENT:
            self.is_over = True
        elif not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise unexpected(answer)

    def read(self, chunk: bytes) -> list[Event]:
        """The events that are whole with these bytes. Raises TimeoutError."""
        self._is_silent = False
        self._deadline.left(SILENCE)
        events = list(self._parser.feed(chunk))
        self.is_over = any(event.type.is_last for event in events)
        return events

    def pause(self) -> float:
        """Seconds until the next connection: what the service wants. Raises TimeoutError.

        A connection that brought nothing is one that something on the way keeps to itself until it is over.
        """
        self.is_over = self.is_over or (self._can_go_without and self._is_silent)
        return 0.0 if self.is_over else self._deadline.left(self._parser.pause)


def must_be_polled(problem: Problem) -> bool:
    """Whether a problem with a job's events only says that they are not to be had."""
    return problem.code in NO_EVENTS or problem.status == httpx.codes.METHOD_NOT_ALLOWED
