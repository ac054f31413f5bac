from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from core.jobs.claims import Assignment
from core.queue.local_redis import LocalRedis
from core.records import Job, JobKind, JobState
from worker.lease import Lease, Patience

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness


@pytest.fixture
def left() -> list[int]:
    return []


@pytest.fixture
def hold(worker: WorkerHarness, left: list[int]) -> Callable[[Patience], tuple[Lease, Job]]:
    def take(patience: Patience) -> tuple[Lease, Job]:
        _, job = worker.new_subject()
        assignments: list[Assignment] = worker.claims.claim(JobKind.PERSONALIZE, job.ref)
        return Lease(worker.claims, assignments, lambda: worker.stop, patience, leave=left.append), job

    return take


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def lease_end(worker: WorkerHarness, job: Job) -> float:
    return float(worker.ledger.redis.zscore("hdb:running", job.ref))  # type: ignore[arg-type]


def test_a_long_step_keeps_its_lease(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(lease=0.3))
    with lease:
        before = lease_end(worker, job)
        until(lambda: lease_end(worker, job) > before)
        assert lease.live
    assert left == []


def test_a_step_that_hangs_ends_the_process_and_counts(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(step=0.2))
    with lease:
        until(lambda: left)
    found = worker.now(job)
    assert left[0] == 70
    assert (found.state, found.attempt) == (JobState.QUEUED, 1)


def test_steps_that_go_on_are_not_taken_for_hung(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(step=5.0))
    with lease:
        for step in range(20):
            lease.on_progress("finetune", step, 20)
            time.sleep(0.01)
    assert left == []
    assert worker.now(job).state is JobState.RUNNING


def test_a_step_too_long_to_stop_is_left_behind(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(grace=0.2))
    with lease:
        worker.stop = True
        until(lambda: left)
    found = worker.now(job)
    assert left[0] == 75
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)


def test_a_cancel_is_heard_while_steps_are_only_asked_about(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience())
    with lease:
        lease.on_progress("likeness", 0, 1)
        worker.jobs.cancel("local", job.id)
        until(lease.should_stop)
    assert worker.now(job).state is JobState.CANCELED


def test_events_are_told_at_most_four_times_a_second(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience())
    began = time.monotonic()
    with lease:
        for step in range(1, 201):
            lease.on_progress("finetune", step, 200)
    seconds = time.monotonic() - began
    events = worker.ledger.redis.xrange(f"hdb:local:events:{job.id}")
    told = [event for _, event in events if event["event"] == "progress"]  # type: ignore[union-attr]
    assert told[-1]["step"] == "200"
    assert len(told) <= seconds * 4 + 3
    assert worker.now(job).step == 200


def test_a_redis_that_is_away_does_not_stop_the_work(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience())
    with lease:
        with worker.without_redis():
            began = time.monotonic()
            for step in range(50):
                lease.on_progress("finetune", step, 50)
            assert time.monotonic() - began < 30
            assert not lease.should_stop()
        until(lambda: lease.on_progress("finetune", 50, 50) or worker.now(job).step == 50)
    assert left == []


def test_the_job_of_another_worker_is_let_go(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(beat=0.0))
    with lease:
        lease.on_progress("finetune", 1, 9)
        worker.ledger.redis.zadd("hdb:running", {job.ref: 1})
        worker.ledger.reap()
        lease.on_progress("finetune", 2, 9)
        assert lease.should_stop()
        assert lease.live == []
    assert worker.now(job).state is JobState.QUEUED


def test_quick_steps_do_not_wait_for_redis(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, job = hold(Patience(beat=60.0))
    beats, beat = [], worker.ledger.beat
    worker.ledger.beat = lambda *args, **more: beats.append(args[1].step) or beat(*args, **more)  # type: ignore[method-assign,func-returns-value]
    with lease:
        for step in range(1, 51):
            lease.on_progress("finetune", step, 50)
    assert len(beats) < 50
    assert (beats[0], beats[-1], worker.now(job).step) == (1, 50, 50)


def test_a_thread_of_the_lease_ends_with_it(worker: WorkerHarness, hold, left: list[int]) -> None:
    lease, _ = hold(Patience())
    with lease:
        assert any(thread.name == "lease" for thread in threading.enumerate())
    assert not any(thread.name == "lease" for thread in threading.enumerate())


def test_a_result_waits_for_redis_to_come_back(worker: WorkerHarness, local_redis: LocalRedis) -> None:
    worker.claims._patience = 30.0
    _, job = worker.new_subject()
    finish = worker.ledger.finish

    def restart_first(*args: object, **kwargs: object) -> object:
        worker.ledger.finish = finish  # type: ignore[method-assign]
        local_redis.kill()
        threading.Timer(0.3, local_redis.start).start()
        return finish(*args, **kwargs)  # type: ignore[arg-type]

    worker.ledger.finish = restart_first  # type: ignore[method-assign,assignment]
    worker.handle(job)
    until(lambda: local_redis.pid)
    found = worker.now(job)
    assert (found.state, found.attempt) == (JobState.SUCCEEDED, 1)
