"""Following jobs: one task with one connection to Redis reads the events of all jobs that somebody follows.

A follower says which event it has seen last, and gets what came after that: nothing is pushed to it, so nothing can be
lost or doubled on the way, and a slow one holds up nobody. While nobody follows there is neither task nor connection.
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
LOOK_SECONDS = 0.2
"""Time between two looks at what is followed."""
REST_SECONDS = 0.05
"""The same when somebody new has come: they are many when many follow."""
OUTAGE_SECONDS = 1.0
MOST_FOLLOWERS = 1000
"""Of one process; each costs a socket and a little memory."""


@dataclass(eq=False)
class _Waiter:
    """Somebody who wants what came after an event; `once`: also when that is nothing. `found` is None in an outage."""

    key: str
    after: str
    once: bool
    found: list[Event] | None = None
    served: asyncio.Event = field(default_factory=asyncio.Event)


class Reader:
    """Reads for all followers of one event loop."""

    def __init__(self, redis: Redis, is_ending: Callable[[], bool] = lambda: False) -> None:
        """`is_ending`: nobody is kept waiting any more."""
        self._redis = redis
        self._is_ending = is_ending
        self._waiting: set[_Waiter] = set()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="feed")

    async def now(self, ref: str, after: str) -> list[Event] | None:
        """The events of the job `ref` after the event `after` that are there; None when Redis does not answer."""
        waiter = _Waiter(event_key(ref), after, once=True)
        await self._wait(waiter)
        return waiter.found

    async def next(self, ref: str, after: str, seconds: float) -> list[Event]:
        """The same, and when there are none, what comes within so many seconds."""
        waiter = _Waiter(event_key(ref), after, once=False)
        with move_on_after(seconds):
            await self._wait(waiter)
        return waiter.found or []

    async def close(self) -> None:
        """End the task and the connection."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._redis.aclose()

    async def _wait(self, waiter: _Waiter) -> None:
        self._waiting.add(waiter)
        self._arrived.set()
        try:
            await waiter.served.wait()
        finally:
            self._waiting.discard(waiter)

    async def _run(self) -> None:
        while True:
            self._arrived.clear()
            waiting = list(self._waiting)
            try:
                await self._serve(waiting)
                pause = REST_SECONDS
            except BrokerUnavailable:
                pause = OUTAGE_SECONDS
            for waiter in waiting:
                if waiter.once or self._is_ending():
                    waiter.served.set()
            await asyncio.sleep(pause)
            with move_on_after(LOOK_SECONDS if self._waiting else None):
                await self._arrived.wait()

    async def _serve(self, waiting: list[_Waiter]) -> None:
        events = await self._read(waiting)
        for waiter in waiting:
            waiter.found = [each for each in events[waiter.key] if order_of(each.id) > order_of(waiter.after)]
            if waiter.found:
                waiter.served.set()

    async def _read(self, waiting: Iterable[_Waiter]) -> dict[str, list[Event]]:
        """The events of each stream, as far back as one of those who wait wants them. Raises BrokerUnavailable."""
        starts: dict[str, str] = {}
        for waiter in waiting:
            starts[waiter.key] = min(starts.get(waiter.key, waiter.after), waiter.after, key=order_of)
        if not starts:
            return {}
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, after in starts.items():
                    pipeline.xrange(key, min=f"({after}", count=MOST_EVENTS)
                streams = await pipeline.execute(raise_on_error=False)
        return {key: _events(stream) for key, stream in zip(starts, streams, strict=True)}


def _events(stream: Any) -> list[Event]:
    """What Redis answered for one stream. What is wrong with it must not concern those who follow other jobs."""
    try:
        return [read_event(event_id, fields) for event_id, fields in stream]
    except (TypeError, ValueError, KeyError):
        _log.exception("events.unreadable", extra={"answer": type(stream).__name__})
        return []


class Feed:
    """Counts the followers, and has a reader as long as there are any."""

    def __init__(self, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that decodes to str, and answers or raises within a second."""
        self._connect = connect
        self._reader: Reader | None = None
        self.is_ending = False
        """Set when the process is told to stop: the streams end, and their followers begin new ones elsewhere."""
        self.followers = 0

    def refuse_too_many(self) -> None:
        """Raise TooManyFollowers when there are as many as this process serves."""
        if self.followers >= MOST_FOLLOWERS:
            raise TooManyFollowers("Poll the job with Prefer: wait, or try again later.", retry_after=10.0)

    @contextlib.asynccontextmanager
    async def follow(self) -> AsyncIterator[Reader]:
        """Follow something: `async with feed.follow() as reader`."""
        self.followers += 1
        try:
            self._reader = reader = self._reader or Reader(self._connect(), lambda: self.is_ending)
            yield reader
        finally:
            self.followers -= 1
            if self.followers == 0:
                self._reader = None
                with CancelScope(shield=True):
                    await reader.close()
