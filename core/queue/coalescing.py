"""A Lua script for many concurrent calls: calls that arrive during a round trip to Redis share the next one.

One task of each event loop has one connection for it, and sends what has arrived as soon as Redis has answered. So a
call waits for two round trips at most, takes no thread, and many calls cost little more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from core.queue.connection import redis_errors

MAX_AT_ONCE = 100
"""Calls in one round trip, so that Redis can answer others in between."""


class CoalescedScript:
    """`answer = await script(argument, ...)`. Raises BrokerUnavailable, bounded in time."""

    def __init__(self, connect: Callable[[], Redis], script: str) -> None:
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

    def __init__(self, redis: Redis, script: str) -> None:
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
