from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness import ServiceHarness


def test_a_lock_is_for_one(harness: ServiceHarness) -> None:
    locks = harness.locks
    assert [locks.acquire("x", 60) for _ in range(3)] == [True, False, False]
    assert locks.acquire("y", 60)
    locks.release("x")
    assert locks.acquire("x", 60)


def test_a_redis_that_comes_back_empty_gives_it_again(harness: ServiceHarness) -> None:
    assert harness.locks.acquire("x", 60)
    harness.ledger.redis.flushall()
    assert harness.locks.acquire("x", 60)
