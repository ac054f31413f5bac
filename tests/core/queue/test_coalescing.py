from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.errors import BrokerUnavailable
from core.queue.connection import MAX_AT_ONCE, CoalescedScript, connect_async
from core.queue.local_redis import LocalRedis
from core.settings import Settings

TWICE = """
-- numbers -> twice each of them
redis.call('INCR', 'calls')
local answers = {}
for i, number in ipairs(ARGV) do answers[i] = 2 * tonumber(number) end
return answers
"""


@pytest.fixture
def connect(local_redis: LocalRedis) -> Callable[[], Redis]:
    connect = partial(connect_async, Settings(redis_url=local_redis.url))

    async def empty() -> None:
        async with connect() as redis:
            await redis.flushall()

    asyncio.run(empty())
    return connect


async def _calls(connect: Callable[[], Redis]) -> int:
    async with connect() as redis:
        return int(await redis.get("calls"))


def test_calls_during_a_round_trip_share_the_next_one(connect: Callable[[], Redis]) -> None:
    async def run() -> None:
        twice = CoalescedScript(connect, TWICE)
        assert await twice(1) == 2
        answers = await asyncio.gather(*(twice(number) for number in range(2 * MAX_AT_ONCE)))
        assert answers == [2 * number for number in range(2 * MAX_AT_ONCE)]
        assert await _calls(connect) == 1 + 2

    asyncio.run(run())


def test_each_event_loop_has_a_connection_of_its_own(connect: Callable[[], Redis]) -> None:
    twice = CoalescedScript(connect, TWICE)

    async def call() -> int:
        return int(await twice(4))

    assert [asyncio.run(call()) for _ in range(3)] == [8] * 3


def test_a_call_that_is_canceled_cancels_no_other(connect: Callable[[], Redis]) -> None:
    async def run() -> None:
        twice = CoalescedScript(connect, TWICE)
        calls = [asyncio.ensure_future(twice(number)) for number in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        assert [await calls[0], await calls[2]] == [0, 4]

    asyncio.run(run())


def test_a_script_that_fails_says_so_and_the_next_call_is_answered(connect: Callable[[], Redis]) -> None:
    async def run() -> None:
        twice = CoalescedScript(connect, TWICE)
        with pytest.raises(ResponseError):
            await twice("none")
        assert await twice(3) == 6

    asyncio.run(run())


def test_without_redis_all_who_wait_hear_of_it_at_once() -> None:
    async def run() -> None:
        twice = CoalescedScript(partial(connect_async, Settings(redis_url="redis://127.0.0.1:9/0")), TWICE)
        answers = await asyncio.gather(*(twice(1) for _ in range(MAX_AT_ONCE + 1)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {BrokerUnavailable}

    asyncio.run(run())
