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
from core.tenants.rate_limits import Rate, Rates, Verdict


@pytest.fixture
def rates(local_redis: LocalRedis) -> Rates:
    settings = Settings(redis_url=local_redis.url)
    with connect(settings) as redis:
        redis.flushall()
    return Rates(partial(connect_async, settings))


def take(rates: Rates, rate: Rate, times: int, tenant: str = "acme") -> list[Verdict]:
    """So many, one after the other."""

    async def each() -> list[Verdict]:
        return [await rates.take(tenant, rate) for _ in range(times)]

    return asyncio.run(each())


@pytest.mark.parametrize("limit", [1, 3, 7, 600])
def test_a_burst_of_a_whole_window_is_served_and_no_more(rates: Rates, limit: int) -> None:
    rate = Rate("requests", limit, 3600)
    verdicts = take(rates, rate, limit + 2)
    assert [verdict.taken for verdict in verdicts] == [True] * limit + [False] * 2
    assert [verdict.left for verdict in verdicts] == [*reversed(range(limit)), 0, 0]
    assert 1 <= verdicts[-1].wait <= math.ceil(3600 / limit)
    assert 3600 - limit <= verdicts[-1].reset <= 3600
    assert take(rates, rate, 1, "other")[0].taken


def test_it_leaks_evenly(rates: Rates) -> None:
    rate = Rate("requests", 10, 1)
    while take(rates, rate, 5)[-1].taken:
        pass
    time.sleep(0.25)
    assert 2 <= sum(verdict.taken for verdict in take(rates, rate, 4)) <= 3


def test_what_was_taken_in_vain_is_given_back(rates: Rates) -> None:
    rate = Rate("personalizations", 2, 3600)
    take(rates, rate, 2)
    asyncio.run(rates.give_back("acme", rate))
    assert [verdict.taken for verdict in take(rates, rate, 2)] == [True, False]
    asyncio.run(rates.give_back("nobody", rate))


def test_the_key_goes_when_the_bucket_is_empty(rates: Rates, local_redis: LocalRedis) -> None:
    take(rates, Rate("requests", 10, 1), 1)
    time.sleep(0.15)
    with connect(Settings(redis_url=local_redis.url)) as redis:
        assert redis.exists("hdb:acme:rate:requests") == 0


def test_many_at_once_get_no_more(rates: Rates) -> None:
    rate = Rate("requests", 20, 3600)

    async def together() -> list[Verdict]:
        return await asyncio.gather(*(rates.take("acme", rate) for _ in range(60)))

    assert sum(verdict.taken for verdict in asyncio.run(together())) == 20


def test_without_redis_it_says_so() -> None:
    gone = Rates(partial(connect_async, Settings(redis_url="redis://127.0.0.1:9/0"), patience=0.25))
    with pytest.raises(BrokerUnavailable):
        take(gone, Rate("x", 1, 1), 1)
