from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import (
    BrokerUnavailable,
    ImageNotFound,
    JobNotFound,
    JobOver,
    QueueFull,
    StoreUnavailable,
    SubjectNotFound,
    SubjectNotReady,
)
from core.ids import new_id
from core.jobs.ledger import Ledger, Limits
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import GenerateResult, Image, JobKind, JobState, SubjectStatus, WeightsStage
from core.services import make_services
from core.settings import Settings
from core.storage import FolderStore
from core.storage.keys import image_id, pending
from core.testing import MemoryNotifier, MemoryStore
from tests.harness import ServiceHarness

PERSONALIZE, GENERATE = JobKind.PERSONALIZE, JobKind.GENERATE


def stored(harness: ServiceHarness, secret: bytes) -> list[str]:
    return [key for key, data in harness.store.objects.items() if secret in data]


def remembered(harness: ServiceHarness) -> str:
    """All keys of Redis, and all of their values."""
    redis = harness.ledger.redis
    return " ".join([key + str(redis.dump(key)) for key in redis.scan_iter("*")])


def test_a_request_is_in_the_store_before_it_is_in_the_queue(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assert harness.store.exists(f"pending/local/{job.id}.json")
    assert harness.store.get(subject.photos[0]) == b"photo of a face"
    assert harness.notifier.notified == [("personalize", job.ref)]
    assert harness.jobs.get("local", job.id).state is JobState.QUEUED
    assert harness.subjects.get("local", subject.id) == subject


def test_the_whole_way_from_photo_to_picture(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    assert subject.status is SubjectStatus.READY
    assert (subject.likeness, subject.kept_step, subject.bundle) == (0.5, 9, "toy")
    assert subject.seconds == {"finetune": 1.0}
    assert harness.subjects.weights("local", subject.id) == b"weights of a face"

    job = harness.generation(subject, seed=3)
    assignment = harness.claim(GENERATE, job.ref)
    assert assignment.request.weights_key == subject.weights.refined_key
    harness.archive.put_attempt(assignment.job, "0.png", b"picture", content_type="image/png")
    image = Image(id=image_id(job.id, 0), seed=3, width=64, height=64)
    assert harness.claims.commit(assignment, GenerateResult(images=(image,)), {})
    done = harness.jobs.get("local", job.id)
    assert (done.state, done.result.images) == (JobState.SUCCEEDED, (image,))
    assert harness.jobs.image("local", image.id) == b"picture"
    assert list(harness.store.list("pending/")) == []


def test_a_subject_is_ready_as_soon_as_its_job_is_over(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(PERSONALIZE, job.ref)
    harness.ledger.finish(
        assignment.claim, JobState.SUCCEEDED, result=harness.weights_of(assignment)
    )  # and no more yet
    assert harness.jobs.get("local", job.id).state is JobState.SUCCEEDED
    assert harness.generation(subject).state is JobState.QUEUED
    assert harness.subjects.get("local", subject.id).status is SubjectStatus.READY
    other, _ = harness.new_subject()
    with harness.without_redis():
        assert harness.subjects.get("local", other.id).status is SubjectStatus.PERSONALIZING


def test_the_photo_goes_when_personalizing_ends_unless_asked_for(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    assert subject.photos == ()
    assert stored(harness, b"photo of a face") == []
    harness = ServiceHarness(harness.ledger, harness.store, keep_photos=True)
    subject = harness.ready_subject()
    assert harness.store.get(subject.photos[0]) == b"photo of a face"


def test_a_job_that_is_over_is_known_without_redis(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    before = harness.jobs.get("local", subject.job_id)
    harness.ledger.redis.flushall()
    assert harness.jobs.get("local", subject.job_id) == before
    with pytest.raises(JobOver):
        harness.jobs.cancel("local", subject.job_id)


def test_unknown_things_are_not_found(harness: ServiceHarness) -> None:
    for name in ("", "nonsense", "../../x", new_id("job"), new_id("sub"), new_id("img")):
        with pytest.raises(JobNotFound):
            harness.jobs.get("local", name)
        with pytest.raises(SubjectNotFound):
            harness.subjects.get("local", name)
        with pytest.raises(SubjectNotFound):
            harness.subjects.delete("local", name)
        with pytest.raises(ImageNotFound):
            harness.jobs.image("local", name)


def test_another_tenant_sees_nothing(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    with pytest.raises(SubjectNotFound):
        harness.subjects.get("other", subject.id)
    with pytest.raises(SubjectNotFound):
        harness.subjects.delete("other", subject.id)
    with pytest.raises(JobNotFound):
        harness.jobs.get("other", subject.job_id)
    assert harness.subjects.page("other") == []


def test_subjects_are_listed_in_order_and_in_pages(harness: ServiceHarness) -> None:
    subjects = []
    for _ in range(3):
        subjects.append(harness.new_subject()[0].id)
        time.sleep(0.002)
    assert [subject.id for subject in harness.subjects.page("local")] == subjects[::-1]
    assert [subject.id for subject in harness.subjects.page("local", limit=1, after=subjects[2])] == subjects[1:2]


def test_nothing_is_generated_before_there_are_weights(harness: ServiceHarness) -> None:
    subject, _ = harness.new_subject()
    with pytest.raises(SubjectNotReady):
        harness.generation(subject)
    with pytest.raises(SubjectNotReady, match="preview"):
        harness.generation(harness.ready_subject(), stage=WeightsStage.PREVIEW)


def test_a_full_queue_takes_nothing_and_keeps_nothing(harness: ServiceHarness) -> None:
    for _ in range(20):
        harness.new_subject()
    before = dict(harness.store.objects)
    with pytest.raises(QueueFull):
        harness.new_subject()
    assert harness.store.objects == before


def test_a_queue_that_fills_up_meanwhile_keeps_nothing_either(harness: ServiceHarness) -> None:
    harness.jobs.refuse_when_full = lambda tenant, kind: None
    for _ in range(20):
        harness.new_subject()
    before = dict(harness.store.objects)
    with pytest.raises(QueueFull):
        harness.new_subject()
    assert harness.store.objects == before


def test_without_redis_nothing_is_accepted_within_a_second(tmp_path: Path) -> None:
    dead = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), Limits())
    store = MemoryStore()
    services = make_services(store, dead, MemoryNotifier())
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        services.subjects.create("local", [b"photo"], consent=None)
    assert time.monotonic() - began < 1.0
    assert store.objects == {}


def test_what_was_refused_and_yet_queued_leaves_nothing(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = harness.ready_subject()
    before, accept = dict(harness.store.objects), Ledger.accept

    def answer_is_lost(ledger: Ledger, *job: Any, **more: Any) -> str:
        accept(ledger, *job, **more)
        raise BrokerUnavailable

    monkeypatch.setattr(Ledger, "accept", answer_is_lost)
    with pytest.raises(BrokerUnavailable):
        harness.generation(subject)
    assert harness.ledger.queued(GENERATE) == 1
    assert harness.claims.claim(GENERATE, "", max_jobs=1, max_rows=100) == []
    assert harness.store.objects == before
    assert harness.ledger.queued(GENERATE) == 0


def test_a_job_is_canceled_at_once_while_it_waits(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assert harness.jobs.cancel("local", job.id).state is JobState.CANCELED
    assert harness.subjects.get("local", subject.id).status is SubjectStatus.CANCELED
    assert stored(harness, b"photo of a face") == []
    assert list(harness.store.list("pending/")) == []
    with pytest.raises(JobOver):
        harness.jobs.cancel("local", job.id)


def test_a_job_that_redis_lost_can_be_canceled(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    harness.ledger.redis.flushall()
    assert harness.jobs.cancel("local", job.id).state is JobState.CANCELED


def test_a_failed_job_says_why_also_on_its_subject(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    harness.claims.fail(harness.claim(PERSONALIZE, job.ref), StoreUnavailable("The store burnt down."))
    assert harness.jobs.get("local", job.id).error.code == "store-unavailable"
    after = harness.subjects.get("local", subject.id)
    assert (after.status, after.error.detail) == (SubjectStatus.FAILED, "The store burnt down.")


def test_an_attempt_that_came_to_nothing_leaves_nothing(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    first = harness.claim(PERSONALIZE, job.ref)
    harness.weights_of(first)
    harness.claims.give_back(first, counted=True)
    assert harness.notifier.notified[-1] == ("personalize", job.ref)
    assert stored(harness, b"weights of a face") == []


def test_a_late_worker_neither_wins_nor_harms(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    late = harness.claim(PERSONALIZE, job.ref)
    late_result = harness.weights_of(late)
    harness.let_lease_end(job)
    harness.maintenance.tick()
    second = harness.claim(PERSONALIZE, job.ref)
    result = harness.weights_of(second)
    assert harness.claims.commit(second, result, {})
    late_result = harness.weights_of(late)
    assert not harness.claims.commit(late, late_result, {})
    assert stored(harness, b"weights of a face") == [result.weights.refined_key]
    assert harness.subjects.weights("local", subject.id) == b"weights of a face"


@pytest.mark.parametrize("when", ["queued", "running", "over"])
def test_deletion_leaves_nothing_behind(harness: ServiceHarness, when: str) -> None:
    subject = harness.ready_subject()
    job = harness.generation(subject)
    assignment = harness.claim(GENERATE, job.ref) if when != "queued" else None
    if assignment:
        harness.archive.put_attempt(assignment.job, "0.png", b"weights of a face", content_type="image/png")
        image = Image(id=image_id(job.id, 0), seed=3, width=64, height=64)
        if when == "over":
            harness.claims.commit(assignment, GenerateResult(images=(image,)), {})
    receipt = harness.subjects.delete("local", subject.id)
    assert set(receipt.job_ids) == {subject.job_id, job.id}
    if when == "running":  # the worker has not noticed yet: it writes once more, and then wants to commit
        harness.archive.put_attempt(assignment.job, "1.png", b"weights of a face", content_type="image/png")
        assert not harness.claims.commit(assignment, GenerateResult(images=(image,)), {})
    for secret in (b"photo of a face", b"weights of a face", b"a [V] face"):
        assert stored(harness, secret) == []
    left = [key for key in harness.store.list("") if not key.startswith("usage/")]
    assert sorted(key.split("/")[0] for key in left) == ["erasing", "erasures"]
    assert not any(name in key for key in harness.store.list("usage/") for name in (subject.id, job.id, subject.job_id))
    assert subject.id not in remembered(harness)
    assert job.id not in remembered(harness)
    for gone in (lambda: harness.subjects.get("local", subject.id), lambda: harness.generation(subject)):
        with pytest.raises(SubjectNotFound):
            gone()
    assert harness.subjects.delete("local", subject.id) == receipt
    assert harness.subjects.page("local") == []


def test_an_erasure_without_redis_is_finished_later(harness: ServiceHarness, local_redis: LocalRedis) -> None:
    subject, job = harness.new_subject()
    with harness.without_redis():
        harness.subjects.delete("local", subject.id)
    assert stored(harness, b"photo of a face") == []
    harness.maintenance.finish_erasures()
    assert job.id not in remembered(harness)


def test_check_says_what_is_down(harness: ServiceHarness, tmp_path: Path) -> None:
    assert harness.jobs.check() == {"redis": "ok", "store": "ok"}
    (tmp_path / "file").write_text("")
    dead = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), harness.ledger.limits)
    services = make_services(FolderStore(tmp_path / "file"), dead, MemoryNotifier())
    assert services.jobs.check() == {"redis": "broker-unavailable", "store": "store-unavailable"}


def test_what_to_scale_on(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    harness.generation(subject)
    harness.generation(subject)
    harness.claim(GENERATE)
    assert harness.jobs.queue_lengths() == {"personalize": 0, "generate": 1, "batch": 0, "running": 1}


def test_a_request_with_fields_of_a_newer_version_is_left_to_its_workers(harness: ServiceHarness) -> None:
    job = harness.generation(harness.ready_subject())
    key = pending("local", job.id)
    stored = json.loads(harness.store.get(key))
    harness.store.put(key, json.dumps(stored | {"request": stored["request"] | {"unused": "", "gone": None}}).encode())
    assert harness.archive.accepted("local", job.id).is_newer is False
    harness.store.put(key, json.dumps(stored | {"request": stored["request"] | {"upscale": 2}}).encode())
    assert harness.claims.claim(GENERATE, job.ref) == []
    found = harness.jobs.get("local", job.id)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)
