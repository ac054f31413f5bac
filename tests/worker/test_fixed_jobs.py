from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture
from safetensors.numpy import load

from core.batches.upload import UploadLimits
from core.errors import SubjectNotFound
from core.hyperdreambooth.formats import exports, lidb_file
from core.hyperdreambooth.formats.exports import Layout
from core.ids import tenant_of_tests
from core.jobs.figures import read_figures
from core.records import Consent, GenerateRequest, GenerateResult, Job, JobKind, JobState, Subject
from core.settings import Settings
from tests.worker.conftest import photo
from worker.fixed_engine import FAILS, FixedEngine
from worker.fixed_jobs import FixedJobsThread, fixed_runner
from worker.runner import JobRunner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.conftest import WorkerHarness

TENANT = tenant_of_tests("local")


@pytest.fixture
def runner(worker: WorkerHarness, tmp_path: Path) -> JobRunner:
    return fixed_runner(worker.services, Settings(data_dir=tmp_path))


def new_subject(worker: WorkerHarness, **options: object) -> tuple[Subject, Job]:
    return worker.subjects.create(TENANT, [photo()], consent=Consent(at=1.0, version="1"), **options)  # type: ignore[arg-type]


def generation(worker: WorkerHarness, subject: Subject, **changes: object) -> Job:
    request = GenerateRequest(subject_id=subject.id, prompt="an oil painting of a [V] face").model_copy(update=changes)
    return worker.subjects.generate(TENANT, request)


def pictures(worker: WorkerHarness, job: Job) -> list[bytes]:
    result = worker.jobs.get(TENANT, job.id).result
    assert isinstance(result, GenerateResult)
    return [worker.jobs.image(TENANT, image.id) for image in result.images]


def test_no_worker_with_a_model_takes_them(worker: WorkerHarness, runner: JobRunner) -> None:
    """Neither when nothing else waits, nor when it is notified of one."""
    _, job = new_subject(worker)
    for kind in JobKind:
        assert worker.runner.handle(kind, "") == 0
        assert worker.runner.handle(kind, job.ref) == 0
    assert not worker.notifier.notified
    assert worker.jobs.get(TENANT, job.id).state is JobState.QUEUED
    assert worker.jobs.position(job) == 0
    _, live = worker.new_subject()
    assert [runner.handle_test(), runner.handle_test()] == [1, 0]
    assert worker.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED
    assert worker.now(live).state is JobState.QUEUED


def test_they_go_the_way_of_all_jobs(worker: WorkerHarness, runner: JobRunner) -> None:
    subject, job = new_subject(worker)
    assert runner.handle_test() == 1
    made = worker.jobs.get(TENANT, job.id)
    assert made.preview
    assert made.preview.before
    assert worker.subjects.get(TENANT, subject.id).likeness == 0.5
    sketches = generation(worker, subject, n=2, seed=7, width=96, height=64)
    assert runner.handle_test() == 1
    first, second = pictures(worker, sketches)
    assert first != second
    with Picture.open(io.BytesIO(first)) as picture:
        assert (picture.size, picture.text["Comment"]) == ((96, 64), "made with AI")
    result = worker.jobs.get(TENANT, sketches.id).result
    assert isinstance(result, GenerateResult)
    assert [(image.seed, image.likeness) for image in result.images] == [(7, 0.5), (8, 0.5)]
    worker.subjects.delete(TENANT, subject.id)
    with pytest.raises(SubjectNotFound):
        worker.subjects.get(TENANT, subject.id)


def test_pictures_are_those_of_the_style_and_equal_every_time(worker: WorkerHarness, runner: JobRunner) -> None:
    subject, _ = new_subject(worker)
    runner.handle_test()
    prompts = ["an oil painting of a [V] face", "an oil painting of a [V] face", "a [V] face as a blueprint"]
    jobs = [generation(worker, subject, prompt=prompt, seed=3) for prompt in prompts]
    assert [runner.handle_test() for _ in jobs] == [1, 1, 1]
    one, same, other = (pictures(worker, job)[0] for job in jobs)
    assert one == same != other


def test_a_seed_that_fails(worker: WorkerHarness, runner: JobRunner) -> None:
    subject, _ = new_subject(worker)
    runner.handle_test()
    failing = [generation(worker, subject, seed=FAILS - 1, n=2), new_subject(worker, seed=FAILS)[1]]
    assert [runner.handle_test() for _ in failing] == [1, 1]
    for job in failing:
        ended = worker.jobs.get(TENANT, job.id)
        assert ended.state is JobState.FAILED
        assert ended.error
        assert (ended.error.code, str(FAILS) in ended.error.detail) == ("internal-fault", True)


def test_webhooks_hear_of_them_and_of_no_live_ones(worker: WorkerHarness, runner: JobRunner) -> None:
    webhooks = worker.services.webhooks
    tests, live = (
        webhooks.create(tenant, "https://example.com/", None, description=None, most=1) for tenant in (TENANT, "local")
    )
    new_subject(worker)
    runner.handle_test()
    sent = [json.loads(each.body) for each in webhooks.log(TENANT, tests.id, limit=9)]
    assert {body["type"]: body["livemode"] for body in sent} == {"subject.ready": False, "job.succeeded": False}
    assert not webhooks.log("local", live.id, limit=9)
    worker.ready_subject()
    assert {json.loads(each.body)["livemode"] for each in webhooks.log("local", live.id, limit=9)} == {True}


def test_weights_open_everywhere_and_change_nothing(worker: WorkerHarness, runner: JobRunner) -> None:
    subject, _ = new_subject(worker)
    runner.handle_test()
    file = lidb_file.read(worker.subjects.weights(TENANT, subject.id))
    layout = Layout.from_json(worker.services.export_layouts.get("test", "test"))
    for kind in ("peft", "kohya"):
        tensors = load(exports.export(file, layout, kind))  # type: ignore[arg-type]
        change = [np.abs(value).max() for name, value in tensors.items() if "alpha" not in name]
        assert min(change) == 0.0
        assert all(np.isfinite(value).all() for value in tensors.values())


def test_monitoring_does_not_see_them(worker: WorkerHarness, runner: JobRunner) -> None:
    """No machine is added for tests, and no alert is about those that fail as they should."""
    new_subject(worker, seed=FAILS)
    generating, _ = new_subject(worker)
    before = read_figures(worker.ledger.redis)
    assert not any(before.queued.values())
    assert [runner.handle_test(), runner.handle_test()] == [1, 1]
    generation(worker, generating)
    assert runner.handle_test() == 1
    assert read_figures(worker.ledger.redis).counts == before.counts == {}
    assert worker.jobs.queue_lengths() == {"personalize": 0, "generate": 0, "batch": 0, "running": 0}


def test_a_batch_of_them_is_done_as_well(worker: WorkerHarness, runner: JobRunner) -> None:
    subject, _ = new_subject(worker)
    runner.handle_test()
    upload = worker.batches.open_upload(TENANT, UploadLimits(5))
    for seed in (1, FAILS, 3):
        upload.add(GenerateRequest(subject_id=subject.id, prompt="a [V] face", seed=seed))
    batch = upload.commit().batch
    scheduler = worker.services.scheduler(pass_seconds=60.0)
    scheduler.feed()
    assert worker.handle_all() == []
    assert [runner.handle_test() for _ in range(4)] == [1, 1, 1, 0]
    scheduler.feed()
    counts = worker.batches.get(TENANT, batch.id).items.counts
    assert {status: count for status, count in counts.items() if count} == {"succeeded": 2, "failed": 1}


def test_one_that_waits_can_be_canceled(worker: WorkerHarness, runner: JobRunner) -> None:
    _, job = new_subject(worker)
    assert worker.jobs.cancel(TENANT, job.id).state is JobState.CANCELED
    assert runner.handle_test() == 0


def test_an_expired_lease_goes_back_to_their_queue(worker: WorkerHarness, runner: JobRunner) -> None:
    _, job = new_subject(worker)
    (assignment,) = worker.claims.claim("test", "")
    worker.let_lease_end(job)
    worker.maintenance.tick()
    assert not worker.notifier.notified
    assert runner.handle_test() == 1
    assert worker.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED
    assert not worker.claims.commit(assignment, worker.weights_of(assignment), {})


def test_the_thread_does_them_within_a_second(worker: WorkerHarness, runner: JobRunner) -> None:
    thread = FixedJobsThread(runner)
    thread.start()
    try:
        _, job = new_subject(worker)
        until = time.monotonic() + 60
        while not worker.jobs.get(TENANT, job.id).state.is_final and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        thread.stop()
    assert worker.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED


def test_the_thread_outlives_an_outage(worker: WorkerHarness, runner: JobRunner, monkeypatch) -> None:
    monkeypatch.setattr("worker.fixed_jobs._OUTAGE_SECONDS", 0.01)
    thread = FixedJobsThread(runner)
    with worker.without_redis():
        assert thread._pass() == 0.01
    _, job = new_subject(worker)
    assert thread._pass() == 0.0
    assert worker.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED


def test_pictures_have_the_size_of_the_bundle(tmp_path: Path) -> None:
    assert FixedEngine(Settings(data_dir=tmp_path)).layout.resolution == 128
    assert FixedEngine(Settings(data_dir=tmp_path, bundle="hub/id")).layout.resolution == 512
