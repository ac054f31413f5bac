from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from core.errors import StoreUnavailable
from core.ids import new_id, time_of
from core.jobs.archive import Accepted
from core.records import GenerateResult, JobKind, JobState, PersonalizeRequest, Receipt, SubjectStatus
from core.storage import keys

if TYPE_CHECKING:
    from tests.harness import Desk

PERSONALIZE = JobKind.PERSONALIZE


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was accepted so far was accepted an hour ago."""
    monkeypatch.setattr("worker.maintenance.time_of", lambda name: time_of(name) - 3600)


def test_an_expired_lease_brings_the_job_back_and_rings(desk: Desk) -> None:
    _, job = desk.new_subject()
    desk.claim(PERSONALIZE, job.ref)
    desk.let_lease_end(job)
    desk.notifier.notified.clear()
    desk.reaper.tick()
    assert desk.notifier.notified == [("personalize", job.ref)]
    assert desk.claim(PERSONALIZE, job.ref).claim.attempt == 2


def test_one_look_around_in_so_many_seconds_however_many_reapers(desk: Desk) -> None:
    _, job = desk.new_subject()
    desk.reaper.tick()
    desk.claim(PERSONALIZE, job.ref)
    desk.let_lease_end(job)
    desk.reaper.tick()
    assert desk.jobs.job("local", job.id).state is JobState.RUNNING


def test_at_the_cap_the_subject_fails_with_the_reason(desk: Desk) -> None:
    subject, job = desk.new_subject()
    for _ in range(3):
        desk.claim(PERSONALIZE, job.ref)
        desk.let_lease_end(job)
        desk.reaper.reap()
    after = desk.jobs.subject("local", subject.id)
    assert after.status is SubjectStatus.FAILED
    assert after.error is not None
    assert after.error.code == "attempts-exhausted"
    assert list(desk.store.list("pending/")) == []
    assert list(desk.store.list(keys.photos("local", subject.id, job.id))) == []


def test_a_redis_that_comes_back_empty_loses_nothing(desk: Desk, an_hour_later: None) -> None:
    waiting = [desk.new_subject()[1] for _ in range(3)]
    desk.claim(PERSONALIZE, waiting[0].ref)
    desk.ledger.redis.flushall()
    desk.notifier.notified.clear()
    assert desk.jobs.job("local", waiting[1].id).state is JobState.QUEUED
    desk.reaper.tick()
    assert sorted(ref for _, ref in desk.notifier.notified) == sorted(job.ref for job in waiting)
    assert {desk.claim(PERSONALIZE).claim.ref for _ in waiting} == {job.ref for job in waiting}


def test_what_is_just_being_accepted_is_left_alone(desk: Desk) -> None:
    _, job = desk.new_subject()
    desk.ledger.redis.flushall()
    desk.reaper.tick()
    assert desk.ledger.get(job.ref) is None


def test_an_ending_that_was_not_written_down_is(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(PERSONALIZE, job.ref)
    result = desk.weights_of(assignment)
    desk.ledger.finish(assignment.claim, JobState.SUCCEEDED, result=result)  # and then the worker dies
    assert desk.jobs.archive.subject("local", subject.id).status is SubjectStatus.PERSONALIZING
    desk.reaper.tick()
    assert desk.jobs.subject("local", subject.id).weights == result.weights
    assert list(desk.store.list("pending/")) == []


def test_a_job_that_redis_forgot_the_end_of_is_not_run_again(desk: Desk) -> None:
    subject, job = desk.new_subject()
    first = desk.claim(PERSONALIZE, job.ref)
    before = desk.ledger.redis.dump(f"hdb:local:job:{job.id}")
    desk.work.commit(first, desk.weights_of(first), {})
    desk.ledger.redis.restore(f"hdb:local:job:{job.id}", 0, before, replace=True)  # the last second of Redis is lost
    desk.ledger.redis.zadd("hdb:running", {job.ref: 1})
    desk.reaper.reap()
    assert desk.work.claim(PERSONALIZE, job.ref) == []
    assert desk.jobs.job("local", job.id).state is JobState.SUCCEEDED
    assert desk.jobs.weights("local", subject.id) == b"weights of a face"


def test_an_upload_whose_server_died_is_removed(desk: Desk, an_hour_later: None) -> None:
    subject_id, job_id = new_id("sub"), new_id("job")
    photo = f"{keys.photos('local', subject_id, job_id)}0.png"
    request = PersonalizeRequest(subject_id=subject_id, photos=(photo,))
    desk.jobs.archive.put_accepted(Accepted(tenant="local", job_id=job_id, created_at=time.time(), request=request))
    desk.store.put(photo, b"photo of a face")
    desk.reaper.tick()
    assert list(desk.store.list("")) == []


def test_one_jobs_trouble_does_not_keep_the_others_waiting(desk: Desk, an_hour_later: None) -> None:
    first, second = (desk.new_subject()[1] for _ in range(2))
    desk.ledger.redis.flushall()
    get = desk.store.get

    def broken(key: str) -> bytes:
        if first.id in key:
            raise StoreUnavailable
        return get(key)

    desk.store.get = broken
    desk.reaper.tick()
    assert desk.ledger.get(first.ref) is None
    assert desk.ledger.get(second.ref) is not None


def test_a_deleted_subject_is_swept_until_nobody_can_write_to_it(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(PERSONALIZE, job.ref)
    desk.jobs.delete_subject("local", subject.id)
    desk.weights_of(assignment)  # a worker that dies right after this
    desk.reaper.finish_erasures()
    assert sorted(key.split("/")[0] for key in desk.store.list("")) == ["erasing", "erasures"]
    desk.reaper.erase_seconds = 0.0
    desk.reaper.finish_erasures()
    assert [key.split("/")[0] for key in desk.store.list("")] == ["erasures"]


def test_what_is_at_rest_is_erased_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = desk.ready_subject()
    waiting = desk.generation(subject)
    for _ in range(3):
        made = desk.generation(subject)
        assert desk.work.commit(desk.claim(JobKind.GENERATE, made.ref), GenerateResult(images=()), {})
    desk.jobs.delete_subject("local", subject.id)
    touched: list[str] = []
    monkeypatch.setattr(desk.store, "delete_prefix", touched.append)
    desk.reaper.finish_erasures()
    assert [prefix for prefix in touched if prefix.startswith("local/jobs/")] == [f"local/jobs/{waiting.id}/"]


def test_one_erasure_that_fails_does_not_keep_the_others_waiting(desk: Desk) -> None:
    subjects = [desk.ready_subject() for _ in range(2)]
    assignments = [desk.claim(JobKind.GENERATE, desk.generation(subject).ref) for subject in subjects]
    for subject in subjects:
        desk.jobs.delete_subject("local", subject.id)
    for assignment in assignments:
        desk.jobs.archive.put_attempt(assignment.job, "0.png", b"late", content_type="image/png")
    first, delete = assignments[0].job.id, desk.store.delete_prefix

    def broken(prefix: str) -> None:
        if first in prefix:
            raise StoreUnavailable
        delete(prefix)

    desk.store.delete_prefix = broken
    desk.reaper.finish_erasures()
    assert {key.split("/")[2] for key in desk.store.list("local/jobs/")} == {first}


def test_a_receipt_is_kept_for_a_day(desk: Desk) -> None:
    for age in (3600, 25 * 3600):
        receipt = Receipt(subject_id=new_id("sub"), tenant="local", deleted_at=time.time() - age)
        desk.jobs.archive.put_receipt(receipt)
        desk.jobs.archive.erased(receipt)
    desk.reaper.tick()
    assert len(list(desk.store.list(keys.ERASURES))) == 1


def test_a_store_that_is_down_gives_the_job_back(desk: Desk) -> None:
    _, job = desk.new_subject()
    get = desk.store.get

    def broken(key: str) -> bytes:
        raise StoreUnavailable

    desk.store.get = broken
    assert desk.work.claim(PERSONALIZE, job.ref) == []
    desk.store.get = get
    found = desk.ledger.get(job.ref)
    assert found is not None
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)


def test_a_job_whose_request_is_gone_fails(desk: Desk) -> None:
    subject, job = desk.new_subject()
    desk.jobs.archive.drop_accepted("local", job.id)
    assert desk.work.claim(PERSONALIZE, job.ref) == []
    assert desk.jobs.job("local", job.id).state is JobState.FAILED
    assert desk.jobs.subject("local", subject.id).status is SubjectStatus.FAILED
