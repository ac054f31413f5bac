"""Waiting for a job or a batch, without input or output: the next request, the state so far, the deadline."""

from __future__ import annotations

import time

import httpx

from hyperdreambooth.client.events import EventParser, StreamedJobEvent
from hyperdreambooth.client.problem import JobFailed, Problem, unexpected
from hyperdreambooth.client.refs import BatchRef, JobRef, job_id_of
from hyperdreambooth.client.request import ApiRequest, given, id_of, parse, path_of
from hyperdreambooth.schemas import BatchAnswer, JobAnswer, JobStatus

LONGEST_WAIT = 20
"""Seconds that one read waits for the job's end: short enough for proxies."""
SILENCE = 20.0
"""Seconds that a stream of events may be silent; the service sends something every 15."""
INTERVAL = 0.5
"""Seconds between two reads of a job whose progress is displayed."""
BATCH_INTERVAL = 2.0
"""Seconds between two reads of a batch."""
NO_EVENTS = frozenset({"not-found", "too-many-followers"})
"""Codes of a service that has no events, or no stream to spare."""

_PROGRESS = {"status", "attempt", "stage", "step", "total", "progress", "seconds_left"}


class Deadline:
    """The end of a wait."""

    def __init__(self, seconds: float | None, what: str = "") -> None:
        """`seconds` from now on; None: never. `what` is the id of the job or batch."""
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


NEVER = Deadline(None)


class JobWaiter:
    """A wait for a job: what was seen of it so far, by polling or by its events."""

    def __init__(self, job: JobRef, timeout: float | None) -> None:
        """`timeout` in seconds; None: as long as it takes."""
        self.job_id = job_id_of(job)
        self.deadline = Deadline(timeout, self.job_id)
        self._etag = ""
        self._is_behind = True
        self._seen: JobAnswer | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job's status is final."""
        return self._seen is not None and self._seen.status.is_final

    def poll(self, *, until_over: bool) -> ApiRequest[tuple[JobAnswer | None, str]]:
        """The next read: of the job when it is over (or LONGEST_WAIT has passed), or as it is. Raises TimeoutError."""
        wait = max(1, round(self.deadline.left(LONGEST_WAIT))) if until_over else 0
        return _job_if_changed(self.job_id, self._etag, wait=wait)

    def on_poll(self, found: tuple[JobAnswer | None, str]) -> JobAnswer | None:
        """The job when it has changed, after the answer to `poll`."""
        job, self._etag = found
        self._seen = job or self._seen
        return job

    def on_event(self, event: StreamedJobEvent) -> JobAnswer | None:
        """The job when the event has changed it. Events from before the first poll change nothing."""
        before = self._seen
        if before is None or event.job:
            self._seen = event.job
        elif self._has_caught_up(event, before) and not event.type.is_last:
            changes = event.model_dump(include=_PROGRESS) | ({"preview": event.preview} if event.preview else {})
            self._seen = before.model_copy(update=changes)
        return None if self._seen == before else self._seen

    def _has_caught_up(self, event: StreamedJobEvent, seen: JobAnswer) -> bool:
        """Whether this event, or one before it, is as new as the first poll."""
        at_the_same = (event.attempt, event.status, event.stage) == (seen.attempt, seen.status, seen.stage)
        is_as_far = at_the_same and (event.step or 0) >= (seen.step or 0)
        self._is_behind = self._is_behind and event.attempt <= seen.attempt and not is_as_far
        return not self._is_behind

    def can_poll_after(self, problem: Problem) -> bool:
        """Whether this problem with the job's events only says that there are none. Raises TimeoutError."""
        self.deadline.left(0.0)
        return problem.code in NO_EVENTS or problem.status == httpx.codes.METHOD_NOT_ALLOWED

    def pause(self) -> float:
        """Seconds to the next poll. Raises TimeoutError."""
        return self.deadline.left(INTERVAL)

    def result(self) -> JobAnswer:
        """The job that is over. Raises JobFailed when it has not succeeded."""
        assert self._seen is not None
        if self._seen.status is not JobStatus.SUCCEEDED:
            raise JobFailed(self._seen)
        return self._seen


class BatchWaiter:
    """A wait for a batch: what was seen of it so far."""

    def __init__(self, batch: BatchRef, timeout: float | None) -> None:
        """`timeout` in seconds; None: as long as it takes."""
        self.deadline = Deadline(timeout, id_of(batch))
        self._seen: BatchAnswer | None = None

    def has_changed(self, found: BatchAnswer) -> bool:
        """Whether the batch is not as it was at the last call."""
        before, self._seen = self._seen, found
        return found != before

    def pause(self) -> float:
        """Seconds to the next poll. Raises TimeoutError."""
        return self.deadline.left(BATCH_INTERVAL)


class EventSubscription:
    """The events of a job over as many connections as it takes, without a gap."""

    def __init__(self, job: JobRef, last_event_id: str = "", deadline: Deadline | None = None) -> None:
        """With a `deadline` (of a wait, which can go on without events) it ends when a connection brings nothing."""
        self._job_id = job_id_of(job)
        self._deadline = deadline or NEVER
        self._is_optional = deadline is not None
        self._parser = EventParser(last_event_id)
        self.is_over = False

    def connect(self) -> ApiRequest[httpx.Response]:
        """The request of the next connection. Raises TimeoutError."""
        self._parser.begin()
        self._is_silent = True
        headers = given({"Accept": "text/event-stream", "Last-Event-ID": self._parser.last_event_id or None})
        return ApiRequest(
            "GET",
            path_of("jobs", self._job_id, "events"),
            lambda answer: answer,
            silence=self._deadline.left(SILENCE),
            options={"headers": headers},
        )

    def check(self, answer: httpx.Response) -> None:
        """Check the head of an answer. Raises Problem when it is no stream of events."""
        if answer.status_code == httpx.codes.NO_CONTENT:
            self.is_over = True
        elif not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise unexpected(answer)

    def read(self, chunk: bytes) -> list[StreamedJobEvent]:
        """The events that these bytes complete. Raises TimeoutError."""
        self._is_silent = False
        self._deadline.left(SILENCE)
        events = list(self._parser.feed(chunk))
        self.is_over = any(event.type.is_last for event in events)
        return events

    def pause(self) -> float:
        """Seconds until the next connection, as the service asks for. Raises TimeoutError.

        A proxy that buffers the stream until its end makes a connection without a single byte.
        """
        self.is_over = self.is_over or (self._is_optional and self._is_silent)
        return 0.0 if self.is_over else self._deadline.left(self._parser.pause)


def _job_if_changed(job_id: str, etag: str, *, wait: int) -> ApiRequest[tuple[JobAnswer | None, str]]:
    """A read of the job and its ETag, after up to `wait` seconds; the job is None when it is still that of `etag`."""

    def read(answer: httpx.Response) -> tuple[JobAnswer | None, str]:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return None, etag
        return parse(JobAnswer, answer), answer.headers.get("etag", "")

    headers = given({"Prefer": f"wait={wait}" if wait else None, "If-None-Match": etag or None})
    return ApiRequest("GET", path_of("jobs", job_id), read, extra_seconds=wait, options={"headers": headers})
