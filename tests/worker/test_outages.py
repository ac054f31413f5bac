"""A store or a Redis that is away, full or read-only: it costs no attempt, and nothing that was made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from core.errors import StoreUnavailable
from core.jobs.ledger import SETBACKS, Progress
from core.records import Job, JobState
from worker.gate import Gate
from worker.lease import Patience

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness

FULL = StoreUnavailable("the store's folder failed: No space left on device")


def asked(worker: WorkerHarness, what: str) -> Job:
    return worker.new_subject()[1] if what == "personalize" else worker.generation(worker.ready_subject(), n=2)


def refuse(worker: WorkerHarness, wanted: Callable[[str], bool], seconds: float) -> list[str]:
    """From the first such write on, the store refuses all of them for so long; returns what was refused."""
    refused: list[str] = []
    put, until = worker.store.put, [0.0]

    def refusing(key: str, data: bytes, **more: str) -> None:
        if not until[0] and wanted(key):
            until[0] = time.monotonic() + seconds
        if until[0] and time.monotonic() < until[0]:
            refused.append(key)
            raise FULL
        put(key, data, **more)

    worker.store.put = refusing  # type: ignore[method-assign,assignment]
    return refused


WRITES = [
    ("personalize", "identity.json"),
    ("personalize", "preview.lidb"),
    ("personalize", "0.png"),
    ("personalize", "refined.lidb"),
    ("personalize", "outcome.json"),
    ("generate", "0.png"),
    ("generate", "1.png"),
    ("generate", "outcome.json"),
]


@pytest.mark.parametrize(("what", "name"), WRITES)
def test_what_was_made_is_kept_until_the_store_takes_it(worker: WorkerHarness, what: str, name: str) -> None:
    job = asked(worker, what)
    begun = len(worker.calls(f"{what}.begun"))
    refused = refuse(worker, lambda key: key.endswith(name), 1.2)
    worker.handle(job)
    worker.services.recovery.reconcile()
    while worker.archive.accepted("local", job.id):
        time.sleep(0.1)
        worker.services.recovery.reconcile()
    found = worker.now(job)
    assert (found.state, found.attempt, len(worker.calls(f"{what}.begun"))) == (JobState.SUCCEEDED, 1, begun + 1)
    assert refused


@pytest.mark.parametrize("what", ["personalize", "generate"])
@pytest.mark.parametrize("how", ["too long", "out of time", "stopped"])
def test_a_longer_outage_costs_no_attempt(worker: WorkerHarness, what: str, how: str) -> None:
    job = asked(worker, what)
    worker.runner._patience = Patience(outage=0.0 if how == "too long" else 60.0)
    refused = refuse(worker, lambda key: key.endswith("0.png"), 1e9)
    polls = iter(range(1000))

    def stops() -> bool:
        if refused and how == "out of time" and next(polls) == 0:
            raise SoftTimeLimitExceeded
        return bool(refused) and how == "stopped"

    worker.runner._worker_stops = stops
    worker.handle(job)
    found = worker.now(job)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)


def test_a_store_that_cannot_be_read_costs_no_attempt_and_waits_longer_each_time(worker: WorkerHarness) -> None:
    _, job = worker.new_subject()
    get = worker.store.get

    def away(key: str) -> bytes:
        if "/photos/" in key:
            raise FULL
        return get(key)

    worker.store.get = away  # type: ignore[method-assign]
    waits = []
    worker.runner._patience = Patience()
    for _ in range(6):
        assert worker.handle(job) == 1
        found = worker.now(job)
        assert (found.state, found.attempt) == (JobState.QUEUED, 0)
        ready: Any = worker.ledger.redis.zscore("hdb:queued:personalize", job.ref)
        waits.append(round(ready / 1000 - time.time()))
        for queue in worker.ledger.redis.keys("hdb:local:line:*"):  # type: ignore[union-attr]
            worker.ledger.redis.zadd(queue, {job.ref: 1})
    assert waits == pytest.approx([5, 10, 20, 40, 60, 60], abs=1)
    worker.store.get = get  # type: ignore[method-assign]
    worker.handle(job)
    assert (worker.now(job).state, worker.now(job).attempt) == (JobState.SUCCEEDED, 1)


def test_a_job_that_alone_cannot_be_read_ends_some_day(worker: WorkerHarness) -> None:
    _, job = worker.new_subject()
    worker.ledger.redis.hset(f"hdb:local:job:{job.id}", "setbacks", SETBACKS)
    worker.runner._patience = Patience()
    get = worker.store.get
    worker.store.get = lambda key: (_ for _ in ()).throw(FULL) if "/photos/" in key else get(key)  # type: ignore[method-assign]
    worker.handle(job)
    assert worker.now(job).state is JobState.FAILED


@pytest.mark.parametrize("runs", [1, 8])
def test_memory_that_is_short_for_a_while_costs_no_attempt(worker: WorkerHarness, runs: int) -> None:
    worker.script_engine(fault="memory", fault_runs=runs)
    _, job = worker.new_subject()
    while worker.handle(job):
        pass
    assert (worker.now(job).state, worker.now(job).attempt) == (JobState.SUCCEEDED, 1)


def test_a_gate_is_shut_while_the_store_takes_no_writes() -> None:
    answers: list[Exception | None] = [FULL, FULL, None, FULL]
    stops = [False]

    def ping() -> None:
        answer = answers.pop(0)
        if answer:
            raise answer

    gate = Gate(ping, lambda: stops[0], patience=60.0)
    assert gate.opens()
    assert len(answers) == 1
    assert not Gate(ping, lambda: stops[0], patience=0.0).opens()
    stops[0] = True
    assert not gate.opens()


@pytest.mark.parametrize("renewed", [True, False])
def test_leases_that_could_not_be_renewed_are_prolonged_once(worker: WorkerHarness, *, renewed: bool) -> None:
    """Redis was away for longer than a lease; the first to come back is the one that takes expired leases back."""
    _, job = worker.new_subject()
    redis = worker.ledger.redis
    (held,) = worker.claims.claim(job.kind, job.ref)
    redis.set("hdb:reaped", round((time.time() - 30) * 1000))
    redis.zadd("hdb:running", {job.ref: round((time.time() - 10) * 1000)})
    assert worker.ledger.reap() == ([], [])
    if renewed:
        assert worker.claims.beat(held, Progress()) == "held"
    redis.zincrby("hdb:running", -30_000, job.ref)
    redis.set("hdb:reaped", round((time.time() - 30) * 1000))
    worker.ledger.reap()
    assert worker.now(job).state is (JobState.RUNNING if renewed else JobState.QUEUED)
