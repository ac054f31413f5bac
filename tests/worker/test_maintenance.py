from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from core.errors import StoreUnavailable, SubjectNotFound
from core.ids import new_id
from core.jobs.archive import Accepted
from core.records import GenerateResult, JobKind, JobState, PersonalizeRequest, Receipt, SubjectStatus
from core.storage import keys
from worker.maintenance import Maintenance

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

PERSONALIZE = JobKind.PERSONALIZE


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was accepted so far was accepted an hour ago."""
    monkeypatch.setattr("core.jobs.recovery._ACCEPTING_SECONDS", 0.0)
    monkeypatch.setattr("core.jobs.recovery._ABANDONED_SECONDS", 0.0)


def test_an_expired_lease_brings_the_job_back_and_rings(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    harness.claim(PERSONALIZE, job.ref)
    harness.let_lease_end(job)
    harness.notifier.notified.clear()
    harness.maintenance.tick()
    assert harness.notifier.notified == [("personalize", job.ref)]
    assert harness.claim(PERSONALIZE, job.ref).claim.attempt == 2


def test_one_round_in_so_many_seconds_however_many_workers(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    harness.maintenance.tick()
    harness.claim(PERSONALIZE, job.ref)
    harness.let_lease_end(job)
    harness.maintenance.tick()
    assert harness.jobs.get("local", job.id).state is JobState.RUNNING


def test_at_the_cap_the_subject_fails_with_the_reason(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    for _ in range(3):
        harness.claim(PERSONALIZE, job.ref)
        harness.let_lease_end(job)
        harness.services.recovery.reap()
    after = harness.subjects.get("local", subject.id)
    assert after.status is SubjectStatus.FAILED
    assert after.error is not None
    assert after.error.code == "attempts-exhausted"
    assert list(harness.store.list("pending/")) == []
    assert list(harness.store.list(keys.photos("local", subject.id, job.id))) == []


def test_a_redis_that_comes_back_empty_loses_nothing(harness: ServiceHarness, an_hour_later: None) -> None:
    waiting = [harness.new_subject()[1] for _ in range(3)]
    harness.claim(PERSONALIZE, waiting[0].ref)
    harness.ledger.redis.flushall()
    harness.notifier.notified.clear()
    assert harness.jobs.get("local", waiting[1].id).state is JobState.QUEUED
    harness.maintenance.tick()
    assert sorted(ref for _, ref in harness.notifier.notified) == sorted(job.ref for job in waiting)
    assert {harness.claim(PERSONALIZE).claim.ref for _ in waiting} == {job.ref for job in waiting}


def test_many_jobs_are_compared_over_several_passes_and_expired_leases_wait_for_none(
    harness: ServiceHarness, an_hour_later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    maintenance = Maintenance(harness.services, reap_seconds=0.002)
    request = PersonalizeRequest(subject_id=new_id("sub"), photos=())
    for _ in range(450):
        harness.archive.put_accepted(Accepted(tenant="local", job_id=new_id("job"), created_at=1.0, request=request))
    compared: list[str] = []
    monkeypatch.setattr(harness.services.recovery, "_reconcile", lambda ref, _: compared.append(ref))
    passes, reaped = 0, 0
    while len(compared) < 450:
        _, job = harness.new_subject()
        harness.claim(PERSONALIZE, job.ref)
        harness.let_lease_end(job)
        time.sleep(0.005)
        maintenance.tick()
        passes += 1
        found = harness.ledger.get(job.ref)
        reaped += found is not None and found.state is JobState.QUEUED
    assert reaped == passes
    assert passes >= 4


def test_what_is_just_being_accepted_is_left_alone(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    harness.ledger.redis.flushall()
    harness.maintenance.tick()
    assert harness.ledger.get(job.ref) is None


def test_an_ending_that_was_not_written_down_is(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(PERSONALIZE, job.ref)
    result = harness.weights_of(assignment)
    harness.ledger.finish(assignment.claim, JobState.SUCCEEDED, result=result)  # and then the worker dies
    assert harness.documents.get("local", subject.id).status is SubjectStatus.PERSONALIZING
    harness.maintenance.tick()
    assert harness.subjects.get("local", subject.id).weights == result.weights
    assert list(harness.store.list("pending/")) == []


def test_a_job_that_redis_forgot_the_end_of_is_not_run_again(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    first = harness.claim(PERSONALIZE, job.ref)
    before = harness.ledger.redis.dump(f"hdb:local:job:{job.id}")
    harness.claims.commit(first, harness.weights_of(first), {})
    harness.ledger.redis.restore(f"hdb:local:job:{job.id}", 0, before, replace=True)  # the last second of Redis is lost
    harness.ledger.redis.zadd("hdb:running", {job.ref: 1})
    harness.services.recovery.reap()
    assert harness.claims.claim(PERSONALIZE, job.ref) == []
    assert harness.jobs.get("local", job.id).state is JobState.SUCCEEDED
    assert harness.subjects.weights("local", subject.id) == b"weights of a face"


def test_an_upload_whose_server_died_is_removed(harness: ServiceHarness, an_hour_later: None) -> None:
    subject_id, job_id = new_id("sub"), new_id("job")
    photo = f"{keys.photos('local', subject_id, job_id)}0.png"
    request = PersonalizeRequest(subject_id=subject_id, photos=(photo,))
    harness.archive.put_accepted(Accepted(tenant="local", job_id=job_id, created_at=time.time(), request=request))
    harness.store.put(photo, b"photo of a face")
    harness.maintenance.tick()
    assert list(harness.store.list("")) == []


def test_one_jobs_trouble_does_not_keep_the_others_waiting(harness: ServiceHarness, an_hour_later: None) -> None:
    first, second = (harness.new_subject()[1] for _ in range(2))
    harness.ledger.redis.flushall()
    get = harness.store.get

    def broken(key: str) -> bytes:
        if first.id in key:
            raise StoreUnavailable
        return get(key)

    harness.store.get = broken
    harness.maintenance.tick()
    assert harness.ledger.get(first.ref) is None
    assert harness.ledger.get(second.ref) is not None


def test_a_deleted_subject_is_swept_until_no_one_can_write_to_it(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(PERSONALIZE, job.ref)
    harness.subjects.delete("local", subject.id)
    harness.weights_of(assignment)  # a worker that dies right after this
    harness.maintenance.finish_erasures()
    assert sorted(key.split("/")[0] for key in harness.store.list("")) == ["erasing", "erasures"]
    harness.maintenance.erase_seconds = 0.0
    harness.maintenance.finish_erasures()
    assert [key.split("/")[0] for key in harness.store.list("")] == ["erasures"]


def test_what_is_at_rest_is_erased_once(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = harness.ready_subject()
    waiting = harness.generation(subject)
    for _ in range(3):
        made = harness.generation(subject)
        assert harness.claims.commit(harness.claim(JobKind.GENERATE, made.ref), GenerateResult(images=()), {})
    harness.subjects.delete("local", subject.id)
    listed, names = [], harness.store.list
    monkeypatch.setattr(harness.store, "list", lambda prefix, **more: listed.append(prefix) or names(prefix, **more))
    harness.maintenance.finish_erasures()
    assert [prefix for prefix in listed if prefix.startswith("local/jobs/")] == [f"local/jobs/{waiting.id}/"]


def test_a_subject_with_many_jobs_is_erased_outside_the_request(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.subjects.deletion.MOST_AT_ONCE", 3)
    subject = harness.ready_subject()
    jobs = [harness.generation(subject) for _ in range(4)]
    assignment = harness.claim(JobKind.GENERATE, jobs[0].ref)
    receipt = harness.subjects.delete("local", subject.id)
    assert harness.subjects.delete("local", subject.id) == receipt
    with pytest.raises(SubjectNotFound):
        harness.subjects.get("local", subject.id)
    assert not harness.claims.commit(assignment, GenerateResult(images=()), {})
    assert all(harness.ledger.get(job.ref) is None for job in jobs)
    harness.maintenance.finish_erasures()
    assert sorted(key.split("/")[0] for key in harness.store.list("")) == ["erasing", "erasures", "usage"]


def test_one_erasure_that_fails_does_not_keep_the_others_waiting(harness: ServiceHarness) -> None:
    subjects = [harness.ready_subject() for _ in range(2)]
    assignments = [harness.claim(JobKind.GENERATE, harness.generation(subject).ref) for subject in subjects]
    for subject in subjects:
        harness.subjects.delete("local", subject.id)
    for assignment in assignments:
        harness.archive.put_attempt(assignment.job, "0.png", b"late", content_type="image/png")
    first, delete = assignments[0].job.id, harness.store.delete_all

    def broken(names: Sequence[str]) -> None:
        if any(first in name for name in names):
            raise StoreUnavailable
        delete(names)

    harness.store.delete_all = broken
    harness.maintenance.finish_erasures()
    assert {key.split("/")[2] for key in harness.store.list("local/jobs/")} == {first}


def test_a_receipt_is_kept_for_a_day(harness: ServiceHarness) -> None:
    for age in (3600, 25 * 3600):
        receipt = Receipt(subject_id=new_id("sub"), tenant="local", deleted_at=time.time() - age)
        harness.documents.put_receipt(receipt)
        harness.documents.end_erasing(receipt)
    harness.maintenance.tick()
    assert len(list(harness.store.list(keys.ERASURES))) == 1


def test_a_store_that_is_down_gives_the_job_back(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    get = harness.store.get

    def broken(key: str) -> bytes:
        raise StoreUnavailable

    harness.store.get = broken
    assert harness.claims.claim(PERSONALIZE, job.ref) == []
    harness.store.get = get
    found = harness.ledger.get(job.ref)
    assert found is not None
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)


def test_a_job_whose_request_is_gone_fails(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    harness.archive.drop_accepted("local", job.id)
    assert harness.claims.claim(PERSONALIZE, job.ref) == []
    assert harness.jobs.get("local", job.id).state is JobState.FAILED
    assert harness.subjects.get("local", subject.id).status is SubjectStatus.FAILED
