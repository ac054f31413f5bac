"""What Prometheus is told of the service as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from core.errors import OutOfTime, StoreUnavailable
from core.heartbeat import beat, is_fresh
from core.jobs.ledger import Ledger
from core.monitoring import ServiceCollector
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import JobKind
from core.settings import Settings
from core.webhooks.schedule import Due, Schedule
from tests.harness import LIMITS, ServiceHarness

ROOT = Path(__file__).parents[2]


@pytest.fixture
def service(local_redis: LocalRedis) -> Iterator[ServiceHarness]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield ServiceHarness(Ledger(redis, LIMITS))
    redis.close()


def told(service: ServiceHarness) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service.services))
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_jobs_are_counted_as_they_end(service: ServiceHarness) -> None:
    subject = service.ready_subject()
    failed, canceled, waiting = (service.generation(subject) for _ in range(3))
    for _ in range(LIMITS.max_attempts):
        service.claims.give_back(service.claim(JobKind.GENERATE, failed.ref), counted=True, error=OutOfTime())
    service.jobs.cancel("local", canceled.id)
    seen = told(service)
    assert seen["hdb_jobs_ended_total", "personalize", "succeeded", ""] == 1
    assert seen["hdb_jobs_ended_total", "generate", "failed", OutOfTime.code] == 1
    assert seen["hdb_jobs_ended_total", "generate", "canceled", ""] == 1
    assert seen["hdb_job_attempts_total", "generate"] == LIMITS.max_attempts
    assert seen["hdb_job_attempts_failed_total", "generate", OutOfTime.code] == LIMITS.max_attempts - 1
    assert seen["hdb_jobs_oldest_seconds", "batch"] == 0.0
    time.sleep(0.05)
    assert told(service)["hdb_jobs_oldest_seconds", "generate"] >= time.time() - waiting.created_at - 0.1


def test_expired_leases_are_counted(service: ServiceHarness) -> None:
    service.new_subject()
    work = service.claim(JobKind.PERSONALIZE)
    service.ledger.redis.zadd("hdb:running", {work.job.ref: 1})
    service.services.recovery.reap()
    assert told(service)["hdb_leases_expired_total", "personalize"] == 1


def test_workers_maintenance_and_webhooks_are_told(service: ServiceHarness) -> None:
    service.services.workers.beat("one", is_loaded=True)
    service.services.workers.beat("two", is_loaded=False)
    schedule = Schedule(service.ledger.redis)
    for number in range(3):
        schedule.add(Due("local", "whk_1", f"msg_{number}"), delay=-5.0 if number == 0 else 60.0)
    service.maintenance.tick()
    seen = told(service)
    assert (seen["hdb_workers",], seen["hdb_workers_loaded",]) == (2, 1)
    assert seen["hdb_webhook_messages_waiting",] == 3
    assert seen["hdb_webhook_overdue_seconds",] >= 0
    done = {key[1] for key in seen if key[0] == "hdb_maintenance_done_timestamp_seconds"}
    assert done == {"reap", "reconcile", "erase", "receipts", "feed"}
    service.services.workers.leave("one")
    service.ledger.redis.zadd("hdb:workers", {"two": 1})
    assert told(service)["hdb_workers",] == 0


def test_an_outage_is_told_and_costs_no_more_than_its_numbers(
    service: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    monkeypatch.setattr("core.monitoring.STORE_SECONDS", 0.05)

    def hang() -> None:
        held.wait(5)
        raise StoreUnavailable

    monkeypatch.setattr(service.store, "ping", hang)
    assert told(service)["hdb_store_up",] == 0
    held.set()
    object.__setattr__(service.services, "redis", Redis(port=9, decode_responses=True))
    assert set(told(service)) == {("hdb_store_up",)}


def test_numbers_that_are_none_are_left_out(service: ServiceHarness) -> None:
    redis = service.ledger.redis
    redis.hset("hdb:counts", mapping={"ended x": "1", "ended a b c": "nonsense", "": "3", "unknown thing": "4"})
    redis.hset("hdb:done", mapping={"reap": "never"})
    assert not [key for key in told(service) if key[0].startswith(("hdb_jobs_ended", "hdb_maintenance"))]
    redis.delete("hdb:counts")
    redis.set("hdb:counts", "no hash")
    service.ready_subject()  # counting fails, and the job does not


def test_a_heartbeat_is_fresh_for_a_while(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    beat(None)
    assert not is_fresh(file)
    check = [sys.executable, "-m", "core.heartbeat"]
    environ = {"HDB_HEARTBEAT_FILE": str(file), "PATH": os.environ["PATH"]}
    assert subprocess.run(check, env=environ, cwd=ROOT, check=False).returncode == 1
    beat(file)
    assert subprocess.run(check, env=environ, cwd=ROOT, check=False).returncode == 0
    os.utime(file, (1, 1))
    assert subprocess.run(check, env=environ, cwd=ROOT, check=False).returncode == 1
    assert subprocess.run(check, env={}, cwd=ROOT, check=False).returncode == 1
