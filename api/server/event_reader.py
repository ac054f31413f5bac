"""Reading the events of jobs for everybody who follows one: one task with one connection to Redis.

A follower names the last event it has seen, and gets those after it. Nothing is pushed to it, so nothing can be lost or
duplicated on the way, and a slow follower delays no other. Without followers there is neither task nor connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from anyio import CancelScope, move_on_after
from redis.asyncio import Redis

from core.errors import BrokerUnavailable, TooManyFollowers
from core.jobs.events import MOST_EVENTS, Event, event_key, order_of, read_event
from core.queue.connection import redis_errors

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
"""Time between two reads of the streams that are followed."""
MIN_POLL_SECONDS = 0.05
"""The same when a read was requested meanwhile: many are when many follow."""
OUTAGE_SECONDS = 1.0
"""The same after an outage of Redis."""
MOST_FOLLOWERS = 1000
"""Of one process; each costs a socket and a little memory."""


@dataclass(eq=False)
class _Read:
    """A requested read of what comes after an event. `found` is None in an outage.

    `once`: it is done after one read of the stream, whether there were events or not.
    """

    key: str
    after: str
    once: bool
    found: list[Event] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class EventReader:
    """Reads for all followers of one event loop."""

    def __init__(self, redis: Redis, is_ending: Callable[[], bool] = lambda: False) -> None:
        """While `is_ending()`, every read ends at once."""
        self._redis = redis
        self._is_ending = is_ending
        self._pending: set[_Read] = set()
        self._requested = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="event-reader")

    async def now(self, ref: str, after: str) -> list[Event] | None:
        """The events of the job `ref` after the event `after`, as of now; None in an outage of Redis."""
        read = _Read(event_key(ref), after, once=True)
        await self._wait(read)
        return read.found

    async def next(self, ref: str, after: str, seconds: float) -> list[Event]:
        """The same, and when there are none, those that come within so many seconds."""
        read = _Read(event_key(ref), after, once=False)
        with move_on_after(seconds):
            await self._wait(read)
        return read.found or []

    async def close(self) -> None:
        """End the task and the connection."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._redis.aclose()

    async def _wait(self, read: _Read) -> None:
        self._pending.add(read)
        self._requested.set()
        try:
            await read.done.wait()
        finally:
            self._pending.discard(read)

    async def _run(self) -> None:
        while True:
            self._requested.clear()
            pending = list(self._pending)
            try:
                await self._serve(pending)
                pause = MIN_POLL_SECONDS
            except BrokerUnavailable:
                pause = OUTAGE_SECONDS
            for read in pending:
                if read.once or self._is_ending():
                    read.done.set()
            await asyncio.sleep(pause)
            with move_on_after(POLL_SECONDS if self._pending else None):
                await self._requested.wait()

    async def _serve(self, pending: list[_Read]) -> None:
        events = await self._read(pending)
        for read in pending:
            read.found = [each for each in events[read.key] if order_of(each.id) > order_of(read.after)]
            if read.found:
                read.done.set()

    async def _read(self, pending: Iterable[_Read]) -> dict[str, list[Event]]:
        """The events of each stream, from the earliest event that a pending read asks for. Raises BrokerUnavailable."""
        starts: dict[str, str] = {}
        for read in pending:
            starts[read.key] = min(starts.get(read.key, read.after), read.after, key=order_of)
        if not starts:
            return {}
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, after in starts.items():
                    pipeline.xrange(key, min=f"({after}", count=MOST_EVENTS)
                streams = await pipeline.execute(raise_on_error=False)
        return {key: _events(stream) for key, stream in zip(starts, streams, strict=True)}


def _events(stream: Any) -> list[Event]:
    """What Redis answered for one stream; none when it is unreadable, so that followers of other jobs are served."""
    try:
        return [read_event(event_id, fields) for event_id, fields in stream]
    except (TypeError, ValueError, KeyError, OverflowError):
        _log.exception("events.unreadable", extra={"answer": type(stream).__name__})
        return []


class Feed:
    """Counts the followers, and has a reader as long as there are any."""

    def __init__(self, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that decodes to str, and answers or raises within a second."""
        self._connect = connect
        self._reader: EventReader | None = None
        self.is_ending = False
        """Set when the process is about to end: the streams end, and their followers connect again elsewhere."""
        self.followers = 0

    def refuse_too_many(self) -> None:
        """Raise TooManyFollowers when there are as many as this process serves."""
        if self.followers >= MOST_FOLLOWERS:
            raise TooManyFollowers("Poll the job with Prefer: wait, or try again later.", retry_after=10.0)

    @contextlib.asynccontextmanager
    async def follow(self) -> AsyncIterator[EventReader]:
        """A reader for as long as the caller follows: `async with feed.follow() as reader`."""
        self.followers += 1
        try:
            self._reader = reader = self._reader or EventReader(self._connect(), lambda: self.is_ending)
            yield reader
        finally:
            self.followers -= 1
            if self.followers == 0:
                self._reader = None
                with CancelScope(shield=True):
                    await reader.close()
