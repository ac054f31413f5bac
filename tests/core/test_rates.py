from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.broker import LocalRedis, connect
from core.errors import BrokerUnavailable
from core.rates import Rate, Rates
from core.settings import Settings


@pytest.fixture
def rates(local_redis: LocalRedis) -> Iterator[Rates]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield Rates(redis)
    redis.close()


@pytest.mark.parametrize("limit", [1, 3, 7, 600])
def test_a_burst_of_a_whole_window_is_served_and_no_more(rates: Rates, limit: int) -> None:
    rate = Rate("requests", limit, 3600)
    verdicts = [rates.take("acme", rate) for _ in range(limit + 2)]
    assert [verdict.taken for verdict in verdicts] == [True] * limit + [False] * 2
    assert [verdict.left for verdict in verdicts] == [*reversed(range(limit)), 0, 0]
    assert 1 <= verdicts[-1].wait <= math.ceil(3600 / limit)
    assert 3600 - limit <= verdicts[-1].reset <= 3600
    assert rates.take("other", rate).taken


def test_it_leaks_evenly(rates: Rates) -> None:
    rate = Rate("requests", 10, 1)
    while rates.take("acme", rate).taken:
        pass
    time.sleep(0.25)
    taken = [rates.take("acme", rate).taken for _ in range(4)]
    assert 2 <= sum(taken) <= 3


def test_what_was_taken_in_vain_is_given_back(rates: Rates) -> None:
    rate = Rate("personalizations", 2, 3600)
    rates.take("acme", rate)
    rates.take("acme", rate)
    rates.give_back("acme", rate)
    assert [rates.take("acme", rate).taken for _ in range(2)] == [True, False]
    rates.give_back("nobody", rate)


def test_the_key_goes_when_the_bucket_is_empty(rates: Rates) -> None:
    rates.take("acme", Rate("requests", 10, 1))
    time.sleep(0.15)
    redis = rates._take.registered_client
    assert redis.exists("hdb:acme:rate:requests") == 0


def test_many_at_once_get_no_more(rates: Rates) -> None:
    rate = Rate("requests", 20, 3600)
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: rates.take("acme", rate).taken, range(60)))
    assert sum(taken) == 20


def test_without_redis_it_says_so() -> None:
    with pytest.raises(BrokerUnavailable):
        Rates(connect(Settings(redis_url="redis://127.0.0.1:9/0"), patience=0.25)).take("acme", Rate("x", 1, 1))
