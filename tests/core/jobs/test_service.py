from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from core.jobs.service import Jobs
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import GenerateResult, Image, Job, JobKind, JobState, SubjectStatus, WeightsStage
from core.settings import Settings
from core.storage import FolderStore
from core.storage.keys import image_id
from core.testing import MemoryNotifier, MemoryStore

if TYPE_CHECKING:
    from tests.harness import Desk

PERSONALIZE, GENERATE = JobKind.PERSONALIZE, JobKind.GENERATE


def stored(desk: Desk, secret: bytes) -> list[str]:
    return [key for key, data in desk.store.objects.items() if secret in data]


def remembered(desk: Desk) -> str:
    """All keys of Redis, and all of their values."""
    redis = desk.ledger.redis
    return " ".join([key + str(redis.dump(key)) for key in redis.scan_iter("*")])


def test_a_request_is_in_the_store_before_it_is_in_the_queue(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assert desk.store.exists(f"pending/local/{job.id}.json")
    assert desk.store.get(subject.photos[0]) == b"photo of a face"
    assert desk.notifier.notified == [("personalize", job.ref)]
    assert desk.jobs.job("local", job.id).state is JobState.QUEUED
    assert desk.jobs.subject("local", subject.id) == subject


def test_the_whole_way_from_photo_to_picture(desk: Desk) -> None:
    subject = desk.ready_subject()
    assert subject.status is SubjectStatus.READY
    assert (subject.likeness, subject.kept_step, subject.bundle) == (0.5, 9, "toy")
    assert subject.seconds == {"finetune": 1.0}
    assert desk.jobs.weights("local", subject.id) == b"weights of a face"

    job = desk.generation(subject, seed=3)
    assignment = desk.claim(GENERATE, job.ref)
    assert assignment.request.weights_key == subject.weights.refined_key
    key = desk.jobs.archive.put_attempt(assignment.job, "0.png", b"picture", content_type="image/png")
    image = Image(id=image_id(job.id, 0), key=key, seed=3, width=64, height=64)
    assert desk.work.commit(assignment, GenerateResult(images=(image,)), {})
    done = desk.jobs.job("local", job.id)
    assert (done.state, done.result.images) == (JobState.SUCCEEDED, (image,))
    assert desk.jobs.image("local", image.id) == b"picture"
    assert list(desk.store.list("pending/")) == []


def test_a_subject_is_ready_as_soon_as_its_job_is_over(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(PERSONALIZE, job.ref)
    desk.ledger.finish(assignment.claim, JobState.SUCCEEDED, result=desk.weights_of(assignment))  # and no more yet
    assert desk.jobs.job("local", job.id).state is JobState.SUCCEEDED
    assert desk.generation(subject).state is JobState.QUEUED
    assert desk.jobs.subject("local", subject.id).status is SubjectStatus.READY
    live = desk.jobs.ledger
    other, _ = desk.new_subject()
    desk.jobs.ledger = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), live.limits)
    assert desk.jobs.subject("local", other.id).status is SubjectStatus.PERSONALIZING
    desk.jobs.ledger = live


def test_the_photo_goes_when_personalising_ends_unless_asked_for(desk: Desk) -> None:
    subject = desk.ready_subject()
    assert subject.photos == ()
    assert stored(desk, b"photo of a face") == []
    desk.jobs.keep_photos = True
    subject = desk.ready_subject()
    assert desk.store.get(subject.photos[0]) == b"photo of a face"


def test_a_job_that_is_over_is_known_without_redis(desk: Desk) -> None:
    subject = desk.ready_subject()
    before = desk.jobs.job("local", subject.job_id)
    desk.ledger.redis.flushall()
    assert desk.jobs.job("local", subject.job_id) == before
    with pytest.raises(JobOver):
        desk.jobs.cancel("local", subject.job_id)


def test_unknown_things_are_not_found(desk: Desk) -> None:
    for name in ("", "nonsense", "../../x", new_id("job"), new_id("sub"), new_id("img")):
        with pytest.raises(JobNotFound):
            desk.jobs.job("local", name)
        with pytest.raises(SubjectNotFound):
            desk.jobs.subject("local", name)
        with pytest.raises(SubjectNotFound):
            desk.jobs.delete_subject("local", name)
        with pytest.raises(ImageNotFound):
            desk.jobs.image("local", name)


def test_another_tenant_sees_nothing(desk: Desk) -> None:
    subject = desk.ready_subject()
    with pytest.raises(SubjectNotFound):
        desk.jobs.subject("other", subject.id)
    with pytest.raises(SubjectNotFound):
        desk.jobs.delete_subject("other", subject.id)
    with pytest.raises(JobNotFound):
        desk.jobs.job("other", subject.job_id)
    assert desk.jobs.subjects("other") == []


def test_subjects_are_listed_in_order_and_in_pages(desk: Desk) -> None:
    subjects = []
    for _ in range(3):
        subjects.append(desk.new_subject()[0].id)
        time.sleep(0.002)
    assert [subject.id for subject in desk.jobs.subjects("local")] == subjects[::-1]
    assert [subject.id for subject in desk.jobs.subjects("local", limit=1, after=subjects[2])] == subjects[1:2]


def test_nothing_is_generated_before_there_are_weights(desk: Desk) -> None:
    subject, _ = desk.new_subject()
    with pytest.raises(SubjectNotReady):
        desk.generation(subject)
    with pytest.raises(SubjectNotReady, match="preview"):
        desk.generation(desk.ready_subject(), stage=WeightsStage.PREVIEW)


def test_a_full_queue_takes_nothing_and_keeps_nothing(desk: Desk) -> None:
    for _ in range(20):
        desk.new_subject()
    before = dict(desk.store.objects)
    with pytest.raises(QueueFull):
        desk.new_subject()
    assert desk.store.objects == before


def test_a_queue_that_fills_up_meanwhile_keeps_nothing_either(desk: Desk) -> None:
    desk.jobs.refuse_when_full = lambda kind: None
    for _ in range(20):
        desk.new_subject()
    before = dict(desk.store.objects)
    with pytest.raises(QueueFull):
        desk.new_subject()
    assert desk.store.objects == before


def test_without_redis_nothing_is_accepted_within_a_second(tmp_path: Path) -> None:
    dead = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), Limits())
    store = MemoryStore()
    jobs = Jobs(store, dead, MemoryNotifier())
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        jobs.create_subject("local", [b"photo"], consent=None)
    assert time.monotonic() - began < 1.0
    assert store.objects == {}


def test_what_was_refused_and_yet_queued_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = desk.ready_subject()
    before, accept = dict(desk.store.objects), Ledger.accept

    def answer_is_lost(ledger: Ledger, job: Job, **more: Any) -> str:
        accept(ledger, job, **more)
        raise BrokerUnavailable

    monkeypatch.setattr(Ledger, "accept", answer_is_lost)
    with pytest.raises(BrokerUnavailable):
        desk.generation(subject)
    assert desk.ledger.queued(GENERATE) == 1
    assert desk.work.claim(GENERATE, "", max_jobs=1, max_rows=100) == []
    assert desk.store.objects == before
    assert desk.ledger.queued(GENERATE) == 0


def test_a_job_is_canceled_at_once_while_it_waits(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assert desk.jobs.cancel("local", job.id).state is JobState.CANCELED
    assert desk.jobs.subject("local", subject.id).status is SubjectStatus.CANCELED
    assert stored(desk, b"photo of a face") == []
    assert list(desk.store.list("pending/")) == []
    with pytest.raises(JobOver):
        desk.jobs.cancel("local", job.id)


def test_a_job_that_redis_lost_can_be_canceled(desk: Desk) -> None:
    _, job = desk.new_subject()
    desk.ledger.redis.flushall()
    assert desk.jobs.cancel("local", job.id).state is JobState.CANCELED


def test_a_failed_job_says_why_also_on_its_subject(desk: Desk) -> None:
    subject, job = desk.new_subject()
    desk.work.fail(desk.claim(PERSONALIZE, job.ref), StoreUnavailable("The store burnt down."))
    assert desk.jobs.job("local", job.id).error.code == "store-unavailable"
    after = desk.jobs.subject("local", subject.id)
    assert (after.status, after.error.detail) == (SubjectStatus.FAILED, "The store burnt down.")


def test_an_attempt_that_came_to_nothing_leaves_nothing(desk: Desk) -> None:
    _, job = desk.new_subject()
    first = desk.claim(PERSONALIZE, job.ref)
    desk.weights_of(first)
    desk.work.give_back(first, counted=True)
    assert desk.notifier.notified[-1] == ("personalize", job.ref)
    assert stored(desk, b"weights of a face") == []


def test_a_late_worker_neither_wins_nor_harms(desk: Desk) -> None:
    subject, job = desk.new_subject()
    late = desk.claim(PERSONALIZE, job.ref)
    late_result = desk.weights_of(late)
    desk.let_lease_end(job)
    desk.reaper.tick()
    second = desk.claim(PERSONALIZE, job.ref)
    result = desk.weights_of(second)
    assert desk.work.commit(second, result, {})
    late_result = desk.weights_of(late)
    assert not desk.work.commit(late, late_result, {})
    assert stored(desk, b"weights of a face") == [result.weights.refined_key]
    assert desk.jobs.weights("local", subject.id) == b"weights of a face"


@pytest.mark.parametrize("when", ["queued", "running", "over"])
def test_deletion_leaves_nothing_behind(desk: Desk, when: str) -> None:
    subject = desk.ready_subject()
    job = desk.generation(subject)
    assignment = desk.claim(GENERATE, job.ref) if when != "queued" else None
    if assignment:
        key = desk.jobs.archive.put_attempt(assignment.job, "0.png", b"weights of a face", content_type="image/png")
        image = Image(id=image_id(job.id, 0), key=key, seed=3, width=64, height=64)
        if when == "over":
            desk.work.commit(assignment, GenerateResult(images=(image,)), {})
    receipt = desk.jobs.delete_subject("local", subject.id)
    assert set(receipt.job_ids) == {subject.job_id, job.id}
    if when == "running":  # the worker has not noticed yet: it writes once more, and then wants to commit
        desk.jobs.archive.put_attempt(assignment.job, "1.png", b"weights of a face", content_type="image/png")
        assert not desk.work.commit(assignment, GenerateResult(images=(image,)), {})
    for secret in (b"photo of a face", b"weights of a face", b"a [V] face"):
        assert stored(desk, secret) == []
    left = [key for key in desk.store.list("") if not key.startswith("usage/")]
    assert sorted(key.split("/")[0] for key in left) == ["erasing", "erasures"]
    assert not any(name in key for key in desk.store.list("usage/") for name in (subject.id, job.id, subject.job_id))
    assert subject.id not in remembered(desk)
    assert job.id not in remembered(desk)
    for gone in (lambda: desk.jobs.subject("local", subject.id), lambda: desk.generation(subject)):
        with pytest.raises(SubjectNotFound):
            gone()
    assert desk.jobs.delete_subject("local", subject.id) == receipt
    assert desk.jobs.subjects("local") == []


def test_an_erasure_without_redis_is_finished_later(desk: Desk, local_redis: LocalRedis) -> None:
    subject, job = desk.new_subject()
    live = desk.jobs.ledger
    desk.jobs.ledger = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), live.limits)
    desk.jobs.delete_subject("local", subject.id)
    assert stored(desk, b"photo of a face") == []
    desk.jobs.ledger = live
    desk.reaper.finish_erasures()
    assert job.id not in remembered(desk)


def test_check_says_what_is_down(desk: Desk, tmp_path: Path) -> None:
    assert desk.jobs.check() == {"redis": "ok", "store": "ok"}
    (tmp_path / "file").write_text("")
    dead = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), desk.ledger.limits)
    jobs = Jobs(FolderStore(tmp_path / "file"), dead, MemoryNotifier())
    assert jobs.check() == {"redis": "broker-unavailable", "store": "store-unavailable"}


def test_what_to_scale_on(desk: Desk) -> None:
    subject = desk.ready_subject()
    desk.generation(subject)
    desk.generation(subject)
    desk.claim(GENERATE)
    assert desk.jobs.queue_lengths() == {"personalize": 0, "generate": 1, "batch": 0, "running": 1}
