"""A Redis that answers, and refuses to write: a replica after a failover, one without memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.errors import BrokerUnavailable
from core.queue.local_redis import LocalRedis
from tests.harness import ServiceHarness


@pytest.fixture(params=["READONLY", "OOM"])
def refusing(request: pytest.FixtureRequest, harness: ServiceHarness) -> Iterator[ServiceHarness]:
    """The harness with a ready subject, and then a Redis that refuses to write."""
    redis = harness.ledger.redis
    harness.subject = harness.ready_subject()
    harness.generation(harness.subject)
    if request.param == "OOM":
        redis.config_set("maxmemory", 1)
    else:
        redis.config_set("replica-serve-stale-data", "yes")
        redis.execute_command("REPLICAOF", "127.0.0.1", "9")
    yield harness
    redis.config_set("maxmemory", 0)
    redis.execute_command("REPLICAOF", "NO", "ONE")


def test_every_write_is_an_outage_and_nothing_else(refusing: ServiceHarness, local_redis: LocalRedis) -> None:
    before = dict(refusing.store.objects)
    for act in (
        refusing.new_subject,
        lambda: refusing.generation(refusing.subject),
        lambda: refusing.locks.acquire("x", 1.0),
        refusing.maintenance.tick,
    ):
        with pytest.raises(BrokerUnavailable):
            act()
    assert refusing.store.objects == before


def test_it_is_not_ready(refusing: ServiceHarness) -> None:
    assert refusing.jobs.check() == {"redis": "broker-unavailable", "store": "ok"}
