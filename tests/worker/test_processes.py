"""What happens when processes die: a real Redis, a real Celery worker with a fake engine, real signals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image as Picture

from core.batches.upload import UploadLimits
from core.queue.local_redis import LocalRedis
from core.records import Consent, GenerateRequest, GenerateResult, ItemStatus, Job, JobState, SubjectStatus
from core.services import open_services
from core.settings import load_settings
from core.storage import keys
from core.tenants import usage
from worker.testing import FakeScript, read_calls

pytestmark = pytest.mark.process

QUICK = {
    "engine": "worker.testing:FakeEngine",
    "lease_seconds": 1.5,
    "reap_seconds": 0.2,
    "notify_again_seconds": 2.0,
    "stop_grace": 1.0,
}


class Crew:
    """A harness in this process, and workers in processes of their own."""

    def __init__(self, redis: LocalRedis, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {"redis_url": redis.url, "data_dir": str(folder), **QUICK}
        self.services = open_services(load_settings(**self.options))
        self.jobs, self.subjects = self.services.jobs, self.services.subjects
        self.services.redis.flushall()
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self, **options: object) -> subprocess.Popen[bytes]:
        variables = {f"HDB_{name.upper()}": str(value) for name, value in {**self.options, **options}.items()}
        loaded = len(self.calls("loaded"))
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", f"--hostname=w{len(self.workers)}"],
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        if not (self.script.refuse_to_load or self.script.crash_to_load):
            self.until(lambda: len(self.calls("loaded")) > loaded)
        return worker

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.services.redis.close()

    @property
    def script(self) -> FakeScript:
        file = self.folder / "fake-engine.json"
        return FakeScript.model_validate_json(file.read_text()) if file.exists() else FakeScript()

    def script_engine(self, **script: object) -> None:
        (self.folder / "fake-engine.json").write_text(FakeScript.model_validate(script).model_dump_json())

    def personalize(self) -> Job:
        file = io.BytesIO()
        Picture.new("RGB", (8, 8)).save(file, "PNG")
        return self.subjects.create("local", [file.getvalue()], consent=Consent(at=1.0, version="1"))[1]

    def now(self, job: Job) -> Job:
        return self.jobs.get("local", job.id)

    def until(self, condition: Callable[[], object], seconds: float = 120.0) -> float:
        """Wait for it; gives the seconds it took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                pytest.fail((self.folder / "worker.log").read_text()[-3000:])
            time.sleep(0.02)
        return time.monotonic() - began

    def until_over(self, job: Job) -> Job:
        self.until(lambda: self.now(job).state.is_final)
        return self.now(job)

    def calls(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in read_calls(self.folder) if entry["event"] == event]

    def stored(self, suffix: str) -> list[str]:
        return [key for key in self.services.store.list("") if key.endswith(suffix)]


@pytest.fixture
def crew(local_redis: LocalRedis, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(local_redis, tmp_path)
    yield crew
    crew.end()


def test_killed_while_personalizing_the_next_worker_finishes_once(crew: Crew) -> None:
    crew.script_engine(steps=40, step_seconds=0.05)
    first = crew.start_worker()
    job = crew.personalize()
    crew.until(lambda: crew.now(job).step >= 3)
    child = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    assert psutil.wait_procs(child, timeout=5)[1] == []
    crew.script_engine(steps=3)
    crew.start_worker()
    done = crew.until_over(job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    assert len(crew.calls("personalize.begun")) == 2
    assert len(crew.calls("personalize.done")) == 1
    crew.until(lambda: not crew.stored(f"{job.id}.json"))
    subject = crew.subjects.get("local", job.subject_id)
    assert subject.status is SubjectStatus.READY
    assert sorted(crew.stored(".lidb")) == sorted([subject.weights.preview_key, subject.weights.refined_key])
    assert crew.stored("photos/0.png") == []
    assert crew.stored("0.png") == [keys.picture("local", subject.preview_image.id, done.fence)]

    generation = crew.subjects.generate("local", GenerateRequest(subject_id=subject.id, prompt="a [V] face", n=2))
    pictures = crew.until_over(generation).result
    assert isinstance(pictures, GenerateResult)
    assert all(crew.jobs.image("local", image.id)[:4] == b"\x89PNG" for image in pictures.images)


def test_a_job_that_kills_its_process_is_tried_three_times_and_the_next_job_runs(crew: Crew) -> None:
    crew.script_engine(fault="kill")
    crew.start_worker()
    poison = crew.until_over(crew.personalize())
    assert (poison.state, poison.attempt) == (JobState.FAILED, 3)
    assert poison.error is not None
    assert poison.error.code == "attempts-exhausted"
    assert "3 times" in poison.error.detail
    assert len(crew.calls("personalize.begun")) == 3
    crew.script_engine()
    assert crew.until_over(crew.personalize()).state is JobState.SUCCEEDED


@pytest.mark.parametrize("step_seconds", [0.05, 60.0], ids=["between steps", "in the middle of a long step"])
def test_sigterm_gives_the_job_back_within_three_seconds(crew: Crew, step_seconds: float) -> None:
    crew.script_engine(steps=1000, step_seconds=step_seconds)
    worker = crew.start_worker(lease_seconds=15)
    job = crew.personalize()
    crew.until(lambda: crew.now(job).step >= 1)
    worker.terminate()
    assert crew.until(lambda: crew.now(job).state is JobState.QUEUED) < 3.0
    assert crew.now(job).attempt == 0
    worker.wait(timeout=30)
    crew.script_engine()
    crew.start_worker()
    done = crew.until_over(job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)


def test_a_step_that_hangs_is_ended_at_its_limit(crew: Crew) -> None:
    crew.script_engine(fault="hang", fault_runs=1)
    crew.start_worker(step_time_limit=1, lease_seconds=300)
    hung, waiting = crew.personalize(), crew.personalize()
    crew.until(lambda: crew.now(hung).step == 1)
    crew.until(lambda: crew.now(waiting).state.is_final)  # in 2 to 3 s, and never as late as the lease
    assert crew.until_over(hung).attempt == 2


def test_a_job_that_does_not_listen_is_killed_at_the_hard_limit(crew: Crew) -> None:
    crew.script_engine(fault="hang", fault_runs=1)
    crew.start_worker(job_time_limit=2)
    done = crew.until_over(crew.personalize())
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


def test_a_job_that_takes_too_long_fails_with_the_reason(crew: Crew) -> None:
    crew.script_engine(steps=1000, step_seconds=0.05)
    crew.start_worker(job_time_limit=4)
    failed = crew.until_over(crew.personalize())
    assert failed.error is not None
    assert failed.error.code == "out-of-time"
    assert len(crew.calls("personalize.begun")) == 1


def test_a_job_survives_a_kill_of_redis(crew: Crew, local_redis: LocalRedis) -> None:
    crew.script_engine(steps=100, step_seconds=0.05)
    crew.start_worker(lease_seconds=15)
    job, second = crew.personalize(), crew.personalize()
    crew.until(lambda: crew.now(job).step >= 3)
    local_redis.kill()
    time.sleep(0.5)
    local_redis.start()
    crew.script_engine()
    assert crew.until_over(job).attempt == 1
    assert crew.until_over(second).state is JobState.SUCCEEDED
    assert len(crew.calls("personalize.done")) == 2


def test_a_lost_notification_is_repeated(crew: Crew) -> None:
    job = crew.personalize()
    for queue in ("train", "interactive"):
        crew.services.redis.delete(queue)
    crew.start_worker()
    assert crew.until_over(job).state is JobState.SUCCEEDED


def test_logs_hold_no_prompts(crew: Crew) -> None:
    crew.start_worker()
    job = crew.until_over(crew.personalize())
    request = GenerateRequest(subject_id=job.subject_id, prompt="a secret [V] face")
    crew.until_over(crew.subjects.generate("local", request))
    log = (crew.folder / "worker.log").read_text()
    assert job.id in log
    assert "secret" not in log
    assert all(line.startswith("{") for line in log.splitlines() if job.id in line)


def test_sigterm_to_the_whole_group_gives_the_job_back(crew: Crew) -> None:
    crew.script_engine(steps=1000, step_seconds=0.05)
    worker = crew.start_worker(lease_seconds=15)
    job = crew.personalize()
    crew.until(lambda: crew.now(job).step >= 1)
    for process in [*psutil.Process(worker.pid).children(), psutil.Process(worker.pid)]:
        process.send_signal(signal.SIGTERM)
    assert crew.until(lambda: crew.now(job).state is JobState.QUEUED) < 3.0
    worker.wait(timeout=30)


def test_a_batch_outlives_its_worker_and_an_empty_redis(crew: Crew) -> None:
    crew.options |= {"batch_window": 8, "reconcile_seconds": 1.0}
    first = crew.start_worker()
    subject = crew.subjects.get("local", crew.until_over(crew.personalize()).subject_id)
    crew.until(lambda: crew.subjects.get("local", subject.id).weights)
    crew.script_engine(steps=5, step_seconds=0.02)
    upload = crew.services.batches.open_upload("local", UploadLimits(1))
    for index in range(60):
        upload.add(GenerateRequest(subject_id=subject.id, prompt="a [V] face", seed=index))
    batch, batches = upload.commit().batch, crew.services.batches
    crew.until(lambda: batches.get("local", batch.id).items.counts[ItemStatus.SUCCEEDED])
    first.kill()
    first.wait()
    crew.services.redis.flushall()
    crew.start_worker()
    crew.until(lambda: batches.get("local", batch.id).is_over)
    state = batches.get("local", batch.id)
    assert state.items.counts[ItemStatus.SUCCEEDED] == 60
    found = [each.job for each in batches.items(state, range(60))]
    assert all(job and job.result for job in found)
    assert len(crew.stored("outcome.json")) == 61
    crew.until(lambda: not list(crew.services.store.list("pending/")))
    assert len([each for each in usage.ended(crew.services.store, "local", days=1) if each.pictures]) == 60
