from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from core.webhooks.schedule import MOST_AT_ONCE, Due, Schedule

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

A1, A2, B1 = Due("acme", "whk_a", "msg_1"), Due("acme", "whk_a", "msg_2"), Due("other", "whk_b", "msg_1")


@pytest.fixture
def schedule(harness: ServiceHarness) -> Schedule:
    return Schedule(harness.ledger.redis)


def keys(harness: ServiceHarness) -> list[str]:
    return sorted(harness.ledger.redis.keys("hdb:*"))


def test_what_is_due_is_taken_once(schedule: Schedule) -> None:
    assert schedule.add(A1)
    assert not schedule.add(A1)
    assert schedule.has(A1)
    assert not schedule.has(B1)
    assert schedule.take(10) == [A1]
    assert schedule.take(10) == []


def test_a_webhook_is_sent_one_more_at_a_time_with_each_quick_answer(schedule: Schedule) -> None:
    for number in range(100):
        schedule.add(Due("acme", "whk_a", f"msg_{number:03}"))
    at_once = []
    for _ in range(6):
        taken = schedule.take(100)
        at_once.append(len(taken))
        assert schedule.take(100) == [], "until one of them ends"
        for due in taken:
            schedule.end(due, answer="quick")
    assert at_once == [1, 2, 4, 8, 8, 8]
    first, *others = schedule.take(100)
    schedule.end(first, again=3600, answer="slow")
    for due in others:
        assert schedule.take(100) == []
        schedule.end(due)
    assert len(schedule.take(100)) == 1
    assert MOST_AT_ONCE == 8


def test_those_that_are_sent_one_at_a_time_share_some_places(schedule: Schedule) -> None:
    for number in range(3):
        schedule.add(Due("acme", "whk_quick", f"msg_{number}"))
    (first,) = schedule.take(1)
    schedule.end(first, answer="quick")
    for number in range(5):
        schedule.add(Due("acme", f"whk_slow{number}", "msg_1"))
    taken = schedule.take(100, unproven=2)
    assert Counter(due.webhook_id[:8] for due in taken) == {"whk_slow": 2, "whk_quic": 2}
    assert schedule.take(100, unproven=2) == []
    schedule.end(next(due for due in taken if "slow" in due.webhook_id), answer="slow")
    time.sleep(0.25)
    assert len(schedule.take(100, unproven=2)) == 1


def test_a_long_queue_delays_no_other(schedule: Schedule) -> None:
    for number in range(300):
        schedule.add(Due("acme", "whk_a", f"msg_{number:03}"))
    schedule.add(B1)
    (first,) = schedule.take(1)
    assert schedule.take(1) == [B1]
    schedule.end(first, answer="quick")
    assert [due.webhook_id for due in schedule.take(3)] == ["whk_a", "whk_a"]


def test_many_webhooks_that_are_busy_are_passed_over(schedule: Schedule) -> None:
    for number in range(250):
        schedule.add(Due("acme", f"whk_{number:03}", "msg_1"))
    assert len(schedule.take(1000, unproven=1000)) == 200
    assert len(schedule.take(1000, unproven=1000)) == 50
    schedule.add(Due("acme", "whk_000", "msg_2"))  # busy: not now
    schedule.add(B1)
    assert schedule.take(10, unproven=1000) == [B1]


def test_what_comes_new_does_not_wait_for_what_is_due_later(schedule: Schedule) -> None:
    schedule.add(A1, delay=3600)
    assert schedule.take(10) == []
    schedule.add(A2)
    assert schedule.take(10) == [A2]
    schedule.end(A2)
    assert schedule.take(10) == []
    assert schedule.has(A1)


def test_what_failed_comes_again_in_its_time(schedule: Schedule) -> None:
    schedule.add(A1)
    schedule.take(1)
    schedule.end(A1, again=3600)
    assert schedule.take(1) == []
    schedule.add(A2)
    assert schedule.take(1) == [A2]
    schedule.end(A2)
    schedule.add(B1)
    schedule.take(1)
    schedule.end(B1, again=0)
    assert schedule.take(1) == [B1]


def test_a_webhook_that_failed_is_left_in_peace(harness: ServiceHarness, schedule: Schedule) -> None:
    schedule.add(A1)
    schedule.add(A2)
    schedule.take(1)
    schedule.end(A1, again=1, cooldown=3600, answer="slow")
    assert schedule.take(1) == []
    harness.ledger.redis.delete("hdb:acme:cooling:whk_a")
    harness.ledger.redis.zadd("hdb:deliveries", {"acme/whk_a": 1})
    assert schedule.take(1) == [A2]


def test_what_a_dead_dispatcher_had_comes_again(schedule: Schedule) -> None:
    schedule.add(A1)
    assert schedule.take(1, lease=0.001) == [A1]
    time.sleep(0.01)
    assert schedule.take(1) == [A1]


def test_who_comes_late_does_not_bring_back_what_is_over(schedule: Schedule) -> None:
    schedule.add(A1)
    schedule.take(1)
    schedule.end(A1)
    schedule.end(A1, again=0)
    assert schedule.take(1) == []
    assert not schedule.has(A1)


def test_nothing_is_left_in_redis(harness: ServiceHarness, schedule: Schedule) -> None:
    schedule.add(A1)
    schedule.take(1)
    schedule.end(A1)
    assert keys(harness) == []
    schedule.add(A1)
    schedule.take(1)
    schedule.remove("acme", "whk_a")
    assert keys(harness) == []


def test_one_turn_in_so_many_seconds(schedule: Schedule) -> None:
    assert schedule.acquire_interval("deliveries", 60)
    assert not schedule.acquire_interval("deliveries", 60)
