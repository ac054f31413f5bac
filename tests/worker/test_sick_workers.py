"""Workers that are sick, killed or frozen: their jobs run elsewhere, and no later job fails because of them."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from core.records import JobState
from tests.worker.test_processes import Crew, crew

__all__ = ["crew"]
pytestmark = pytest.mark.process


def children(crew: Crew) -> list[int]:
    """Ids of the processes that own the device."""
    return [child.pid for worker in crew.workers for child in psutil.Process(worker.pid).children()]


def test_an_error_after_which_a_process_refuses_everything_costs_one_job_one_attempt(crew: Crew) -> None:
    crew.script_engine(fault="sick", fault_runs=1)
    crew.start_worker()
    jobs = [crew.until_over(crew.personalize()) for _ in range(4)]
    assert [(job.state, job.attempt) for job in jobs] == [(JobState.SUCCEEDED, 2)] + [(JobState.SUCCEEDED, 1)] * 3
    assert len(crew.calls("loaded")) == 2


def test_a_worker_whose_device_is_sick_claims_nothing(crew: Crew) -> None:
    well = crew.start_worker()
    sick = crew.start_worker()
    crew.until(lambda: crew.services.workers.count() == (2, 2))
    crew.script_engine(sick_workers=[sick.pid])
    for child in psutil.Process(sick.pid).children():
        child.kill()
    crew.until(lambda: crew.services.workers.quarantined() == 1)
    assert crew.services.workers.count() == (2, 1)
    jobs = [crew.personalize() for _ in range(6)]
    assert [crew.until_over(job).attempt for job in jobs] == [1] * 6
    by = {entry["pid"] for entry in crew.calls("personalize.begun")}
    assert by <= {child.pid for child in psutil.Process(well.pid).children()}


def test_a_worker_that_keeps_failing_is_in_quarantine_and_its_jobs_run_elsewhere(crew: Crew) -> None:
    crew.script_engine(steps=3, step_seconds=0.1)
    weak = crew.start_worker()
    crew.script_engine(steps=3, step_seconds=0.1, weak_workers=[weak.pid])
    crew.start_worker()
    jobs = [crew.personalize() for _ in range(40)]
    done = [crew.until_over(job) for job in jobs]
    assert {job.state for job in done} == {JobState.SUCCEEDED}
    assert max(job.attempt for job in done) == 2
    assert sum(job.attempt > 1 for job in done) <= 3


def test_a_killed_child_s_job_runs_elsewhere_long_before_its_lease_ends(crew: Crew) -> None:
    crew.script_engine(steps=50, step_seconds=0.1)
    for _ in range(2):
        crew.start_worker(lease_seconds=300)
    job = crew.personalize()
    crew.until(lambda: crew.now(job).step >= 2)
    (busy,) = {entry["pid"] for entry in crew.calls("personalize.begun")}
    killed_at = time.time()
    os.kill(busy, signal.SIGKILL)
    crew.until(lambda: len(crew.calls("personalize.begun")) == 2)
    assert crew.calls("personalize.begun")[1]["pid"] != busy
    assert crew.calls("personalize.begun")[1]["at"] - killed_at < 30
    assert (crew.until_over(job).state, crew.now(job).attempt) == (JobState.SUCCEEDED, 2)


def test_a_frozen_child_is_ended_and_its_job_runs_again(crew: Crew) -> None:
    crew.script_engine(fault="freeze", fault_runs=1)
    crew.start_worker(step_time_limit=2, lease_seconds=300)
    assert (crew.until_over(crew.personalize()).state, len(crew.calls("loaded"))) == (JobState.SUCCEEDED, 2)


def test_a_child_that_gets_no_time_keeps_its_lease(crew: Crew) -> None:
    crew.script_engine(steps=3, step_seconds=0.1, fault="freeze", fault_runs=1)
    crew.start_worker()
    job = crew.personalize()
    crew.until(lambda: crew.calls("personalize.begun"))
    (child,) = children(crew)
    crew.until(lambda: psutil.Process(child).status() == psutil.STATUS_STOPPED)
    time.sleep(4 * crew.options["lease_seconds"])
    os.kill(child, signal.SIGCONT)
    assert (crew.until_over(job).state, crew.now(job).attempt) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize(("script", "words"), [("refuse_to_load", "no such bundle"), ("crash_to_load", "no model")])
def test_a_worker_whose_model_cannot_be_loaded_ends_and_says_why(crew: Crew, script: str, words: str) -> None:
    crew.script_engine(**{script: True})
    job = crew.personalize()
    worker = crew.start_worker()
    assert worker.wait(timeout=120) == 1
    log = (crew.folder / "worker.log").read_text()
    assert "engine.load_failed" in log
    assert words in log
    assert crew.services.workers.count().loaded == 0
    assert crew.now(job).attempt == 0
