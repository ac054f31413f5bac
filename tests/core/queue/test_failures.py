from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from core.errors import StoreUnavailable
from core.queue.failures import OVERDUE_SECONDS, Failures

if TYPE_CHECKING:
    from tests.harness import ServiceHarness


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1_000_000.0]
    monkeypatch.setattr("core.queue.failures.time.time", lambda: time[0])
    return time


def fail() -> None:
    raise StoreUnavailable


def test_what_keeps_failing_is_overdue_until_it_is_done(
    harness: ServiceHarness, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures = Failures(harness.ledger.redis)
    assert not failures.attempt("erase", "acme/sub_1", fail)
    assert failures.overdue() == {}
    now[0] += OVERDUE_SECONDS
    assert failures.attempt("erase", "acme/sub_2", lambda: None)
    assert failures.overdue() == {"erase acme/sub_1": 1_000_000.0}, "also for other processes"
    assert not Failures(harness.ledger.redis).attempt("erase", "acme/sub_1", fail)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert failures.attempt("erase", "acme/sub_1", lambda: None)
    assert failures.overdue() == {}


def test_what_is_no_longer_tried_is_no_longer_overdue(harness: ServiceHarness, now: list[float]) -> None:
    failures = Failures(harness.ledger.redis)
    failures.attempt("erase", "acme/sub_1", fail)
    now[0] += 2 * OVERDUE_SECONDS
    assert failures.overdue()
    now[0] += 3600
    assert failures.overdue() == {}
    failures.attempt("erase", "acme/sub_1", fail)
    assert failures.overdue() == {}, "it fails for the first time again"


def test_without_redis_things_are_done_and_failures_logged(
    harness: ServiceHarness, caplog: pytest.LogCaptureFixture
) -> None:
    failures, done = Failures(harness.ledger.redis), []
    with harness.without_redis():
        assert failures.attempt("erase", "acme/sub_1", lambda: done.append(1))
        assert not failures.attempt("erase", "acme/sub_1", fail)
    assert done == [1]
    assert [record.getMessage() for record in caplog.records] == ["maintenance.failed"]
