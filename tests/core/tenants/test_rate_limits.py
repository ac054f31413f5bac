from __future__ import annotations

import asyncio
import math
import time
from functools import partial

import pytest

from core.errors import BrokerUnavailable
from core.queue.connection import connect, connect_async
from core.queue.local_redis import LocalRedis
from core.settings import Settings
from core.tenants.rate_limits import Rate, RateLimits, RateStatus


@pytest.fixture
def rates(local_redis: LocalRedis) -> RateLimits:
    settings = Settings(redis_url=local_redis.url)
    with connect(settings) as redis:
        redis.flushall()
    return RateLimits(partial(connect_async, settings))


def take(rates: RateLimits, rate: Rate, times: int, tenant: str = "acme") -> list[RateStatus]:
    """So many, one after the other."""

    async def each() -> list[RateStatus]:
        return [await rates.take(tenant, rate) for _ in range(times)]

    return asyncio.run(each())


@pytest.mark.parametrize("limit", [1, 3, 7, 600])
def test_a_burst_of_a_whole_window_is_served_and_no_more(rates: RateLimits, limit: int) -> None:
    rate = Rate("requests", limit, 3600)
    statuses = take(rates, rate, limit + 2)
    assert [status.granted for status in statuses] == [True] * limit + [False] * 2
    assert [status.left for status in statuses] == [*reversed(range(limit)), 0, 0]
    assert 1 <= statuses[-1].wait <= math.ceil(3600 / limit)
    assert 3600 - limit <= statuses[-1].reset <= 3600
    assert take(rates, rate, 1, "other")[0].granted


def test_it_leaks_evenly(rates: RateLimits) -> None:
    rate = Rate("requests", 10, 1)
    while take(rates, rate, 5)[-1].granted:
        pass
    time.sleep(0.25)
    assert 2 <= sum(status.granted for status in take(rates, rate, 4)) <= 3


def test_what_was_taken_in_vain_is_given_back(rates: RateLimits) -> None:
    rate = Rate("personalizations", 2, 3600)
    take(rates, rate, 2)
    asyncio.run(rates.give_back("acme", rate))
    assert [status.granted for status in take(rates, rate, 2)] == [True, False]
    asyncio.run(rates.give_back("nobody", rate))


def test_the_key_goes_when_the_bucket_is_empty(rates: RateLimits, local_redis: LocalRedis) -> None:
    take(rates, Rate("requests", 10, 1), 1)
    time.sleep(0.15)
    with connect(Settings(redis_url=local_redis.url)) as redis:
        assert redis.exists("hdb:acme:rate:requests") == 0


def test_many_at_once_get_no_more(rates: RateLimits) -> None:
    rate = Rate("requests", 20, 3600)

    async def at_once() -> list[RateStatus]:
        return await asyncio.gather(*(rates.take("acme", rate) for _ in range(60)))

    assert sum(status.granted for status in asyncio.run(at_once())) == 20


def test_without_redis_it_says_so() -> None:
    gone = RateLimits(partial(connect_async, Settings(redis_url="redis://127.0.0.1:9/0"), patience=0.25))
    with pytest.raises(BrokerUnavailable):
        take(gone, Rate("x", 1, 1), 1)
