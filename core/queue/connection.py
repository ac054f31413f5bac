"""Connections to Redis with bounded waits, its outages as one error, and scripts for many concurrent calls."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from core.errors import BrokerUnavailable
from core.settings import Settings

MAX_AT_ONCE = 100
"""Calls of a script in one round trip, so that Redis can answer others in between."""
_NOT_NOW = re.compile(r"\b(MISCONF|NOREPLICAS|BUSY|READONLY|OOM|MASTERDOWN|LOADING|WRONGTYPE)\b")
"""What errors name of a Redis that cannot write now: no disk, no replica, a script that takes too long, a replica
(after a failover), no memory, or something else where ours should be. In Redis 6.2 scripts have it in mid-sentence."""

_OUTAGES = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError)


def connect(settings: Settings, *, patience: float = 0.8) -> Redis:
    """A Redis client that decodes to str, and answers or raises within `patience` seconds; connects lazily."""
    return Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), **_options(patience))


def connect_async(settings: Settings, *, patience: float = 0.8) -> AsyncRedis:
    """The same for an event loop; close it there."""
    return AsyncRedis.from_url(settings.redis_url, retry=AsyncRetry(NoBackoff(), 0), **_options(patience))


def _options(patience: float) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_connect_timeout": patience / 2,
        "socket_timeout": patience,
        "socket_keepalive": True,
        "health_check_interval": 5,
    }


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Turn outages of Redis into BrokerUnavailable; errors in our commands are raised unchanged."""
    try:
        yield
    except _OUTAGES as error:
        raise BrokerUnavailable("The queue cannot be reached; try again in a moment.") from error
    except ResponseError as error:
        if not _NOT_NOW.search(str(error)):
            raise
        raise BrokerUnavailable("The queue cannot be written to; try again in a moment.") from error


class CoalescedScript:
    """A Lua script for many concurrent calls: those that arrive during a round trip to Redis share the next one.

    `answer = await script(argument, ...)` raises BrokerUnavailable, bounded in time. One task of each event loop has
    one connection, and sends what has arrived as soon as Redis has answered. So a call waits for two round trips at
    most, takes no thread, and many calls cost little more than one.
    """

    def __init__(self, connect: Callable[[], AsyncRedis], script: str) -> None:
        """`connect` makes a client that decodes to str, and answers or raises in time.

        `script` takes the arguments of several calls, one after the other, and returns the list of their answers.
        """
        self._connect = connect
        self._script = script
        self._callers: dict[asyncio.AbstractEventLoop, _Caller] = {}

    async def __call__(self, *arguments: str | int) -> Any:
        """The script's answer to these arguments."""
        loop = asyncio.get_running_loop()
        caller = self._callers.get(loop)
        if caller is None:
            caller = self._callers[loop] = _Caller(self._connect(), self._script)
            caller.task.add_done_callback(lambda _: self._callers.pop(loop))
        with redis_errors():
            return await caller.call(arguments)


class _Caller:
    """Makes the calls of one event loop, until that ends."""

    def __init__(self, redis: AsyncRedis, script: str) -> None:
        self._redis = redis
        self._run_script = redis.register_script(script)
        self._waiting: list[tuple[tuple[str | int, ...], asyncio.Future[Any]]] = []
        self._arrived = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="coalesced-script")

    async def call(self, arguments: tuple[str | int, ...]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((arguments, answer))
        self._arrived.set()
        return await answer

    async def _run(self) -> None:
        async with self._redis:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await self._serve()

    async def _serve(self) -> None:
        waiting, self._waiting = self._waiting[:MAX_AT_ONCE], self._waiting[MAX_AT_ONCE:]
        try:
            answers = await self._run_script(args=[argument for arguments, _ in waiting for argument in arguments])
        except Exception as error:  # noqa: BLE001 - it is raised in each call
            # Calls that arrived meanwhile need not wait for the same error in the next round trip.
            waiting, self._waiting = waiting + self._waiting, []
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)
