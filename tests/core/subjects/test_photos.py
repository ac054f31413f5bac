from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import BrokerUnavailable, InvalidInput, QueueFull, StoreUnavailable, SubjectBusy, SubjectNotFound
from core.records import Consent, Job, JobKind, JobState, PersonalizeRequest, Subject, SubjectStatus
from core.storage import keys

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

PERSONALIZE = JobKind.PERSONALIZE
MORE = [b"another photo of a face", b"a third photo of a face"]


def add(
    harness: ServiceHarness, subject: Subject, pictures: list[bytes] = MORE, **options: object
) -> tuple[Subject, Job]:
    consent = Consent(at=2.0, version="1")
    return harness.photos.add(subject.tenant, subject.id, pictures, consent=consent, **options)  # type: ignore[arg-type]


def request_of(harness: ServiceHarness, job: Job) -> PersonalizeRequest:
    accepted = harness.archive.accepted("local", job.id)
    assert accepted is not None
    assert isinstance(accepted.request, PersonalizeRequest)
    return accepted.request


def now(harness: ServiceHarness, subject: Subject) -> Subject:
    return harness.subjects.get("local", subject.id)


def in_store(harness: ServiceHarness, secret: bytes) -> list[str]:
    return [key for key, data in harness.store.objects.items() if secret in data]


def learn(harness: ServiceHarness, job: Job, made: bytes = b"better weights") -> None:
    """What a worker does with the job."""
    assignment = harness.claim(PERSONALIZE, job.ref)
    result = harness.weights_of(assignment)
    harness.store.put(result.weights.refined_key, made)
    assert harness.claims.commit(assignment, result, {"finetune": 2.0})


def test_the_subject_goes_on_with_its_weights_until_better_ones_are_there(harness: ServiceHarness) -> None:
    before = harness.ready_subject()
    refined, job = add(harness, before, steps=7, seed=3)
    assert harness.notifier.notified[-1] == ("personalize", job.ref)
    assert now(harness, before) == refined
    assert (refined.status, refined.refining, refined.job_id) == (SubjectStatus.READY, True, job.id)
    request = request_of(harness, job)
    assert before.weights is not None
    assert (request.start_key, request.steps, request.seed) == (before.weights.refined_key, 7, 3)
    assert [harness.store.get(key) for key in request.photos] == MORE

    pinned = harness.generation(before)
    assert harness.claim(JobKind.GENERATE, pinned.ref).request.weights_key == before.weights.refined_key
    assert harness.subjects.weights("local", before.id) == b"weights of a face"
    learn(harness, job)
    after = now(harness, before)
    assert (after.status, after.refining, after.photos, after.photos_sent) == (SubjectStatus.READY, False, (), 3)
    assert harness.subjects.weights("local", before.id) == b"better weights"
    assert harness.store.get(before.weights.refined_key) == b"weights of a face", "pictures that wait are made of it"
    assert in_store(harness, b"photo of a face") == []
    assert after.seconds == {"finetune": 2.0}
    assert (after.consent, after.consents) == (before.consent, (Consent(at=2.0, version="1"),))


def test_photos_that_were_kept_are_learnt_from_again(harness: ServiceHarness) -> None:
    subject, first = harness.subjects.create(
        "local", [b"first"], consent=Consent(at=1.0, version="1"), keep_photos=True
    )
    learn(harness, first)
    kept = now(harness, subject).photos
    assert len(kept) == 1
    _, job = add(harness, subject)
    request = request_of(harness, job)
    assert request.start_key == "", "it begins anew, from all of them"
    assert [harness.store.get(key) for key in request.photos] == [b"first", *MORE]
    learn(harness, job)
    assert now(harness, subject).photos == request.photos
    _, last = add(harness, subject, [b"fourth"], keep_photos=False)
    assert len(request_of(harness, last).photos) == 4
    learn(harness, last)
    assert now(harness, subject).photos == ()
    assert [key for key in harness.store.objects if key.endswith(".png")] == []


@pytest.mark.parametrize("ending", ["fail", "cancel"])
def test_a_job_that_comes_to_nothing_leaves_the_subject_as_it_was(harness: ServiceHarness, ending: str) -> None:
    before = harness.ready_subject()
    _, job = add(harness, before)
    if ending == "fail":
        harness.claims.fail(harness.claim(PERSONALIZE, job.ref), StoreUnavailable("It burnt down."))
    else:
        harness.jobs.cancel("local", job.id)
    after = now(harness, before)
    assert (after.status, after.refining, after.weights) == (SubjectStatus.READY, False, before.weights)
    assert (after.error is not None) == (ending == "fail")
    assert after.seconds == before.seconds
    assert in_store(harness, b"photo of a face") == []
    assert harness.subjects.weights("local", before.id) == b"weights of a face"
    learn(harness, add(harness, before)[1])
    assert now(harness, before).error is None


def test_a_subject_that_failed_begins_anew(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    harness.claims.fail(harness.claim(PERSONALIZE, job.ref), StoreUnavailable())
    again, second = add(harness, subject)
    assert (again.status, again.refining) == (SubjectStatus.PERSONALIZING, False)
    assert request_of(harness, second).start_key == ""
    learn(harness, second)
    assert now(harness, subject).status is SubjectStatus.READY


def test_one_job_at_a_time(harness: ServiceHarness) -> None:
    subject, first = harness.new_subject()
    with pytest.raises(SubjectBusy, match=first.id):
        add(harness, subject)
    learn(harness, first)
    _, job = add(harness, subject)
    before = dict(harness.store.objects)
    with pytest.raises(SubjectBusy, match=job.id):
        add(harness, subject)
    assert harness.store.objects == before
    harness.ledger.redis.set(f"hdb:local:adding:{subject.id}", "1", ex=30)
    learn(harness, job)
    with pytest.raises(SubjectBusy, match="just now"):
        add(harness, subject)
    harness.ledger.redis.delete(f"hdb:local:adding:{subject.id}")
    add(harness, subject)
    assert not list(harness.ledger.redis.scan_iter("hdb:*:adding:*"))


def test_a_subject_has_so_many_photos_at_most(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    with pytest.raises(InvalidInput, match="send 23 at most"):
        add(harness, subject, [b"p"] * 24)
    learn(harness, add(harness, subject, [b"p"] * 23)[1])
    with pytest.raises(InvalidInput, match="stay as they are"):
        add(harness, subject, [b"p"])


def test_no_one_else_can_add_photos(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    before = dict(harness.store.objects)
    with pytest.raises(SubjectNotFound):
        harness.photos.add("other", subject.id, MORE, consent=Consent(at=2.0, version="1"))
    assert harness.store.objects == before


def test_what_cannot_be_queued_changes_nothing(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    before = dict(harness.store.objects)
    harness.jobs.refuse_when_full = lambda tenant, kind: None  # type: ignore[method-assign]
    full = harness.ledger.limits
    object.__setattr__(full, "queue_limit", 1)
    waiting = harness.new_subject()[1]
    with_waiting = dict(harness.store.objects)
    with pytest.raises(QueueFull):
        add(harness, subject)
    object.__setattr__(full, "queue_limit", 20)
    assert harness.store.objects == with_waiting
    harness.subjects.delete("local", waiting.subject_id)
    with harness.without_redis(), pytest.raises(BrokerUnavailable):
        add(harness, subject)
    assert {key: harness.store.objects[key] for key in before} == before


@pytest.mark.parametrize("when", ["queued", "running"])
def test_deletion_wins(harness: ServiceHarness, when: str) -> None:
    subject = harness.ready_subject()
    _, job = add(harness, subject)
    assignment = harness.claim(PERSONALIZE, job.ref) if when == "running" else None
    receipt = harness.subjects.delete("local", subject.id)
    assert {subject.job_id, job.id} <= set(receipt.job_ids)
    if assignment:
        assert not harness.claims.commit(assignment, harness.weights_of(assignment), {})
    for secret in (b"photo of a face", b"weights of a face"):
        assert in_store(harness, secret) == []
    with pytest.raises(SubjectNotFound):
        add(harness, subject)


def test_a_deletion_at_the_last_moment_wins_as_well(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    put = harness.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key == keys.document("local", subject.id):
            harness.store.put = put  # type: ignore[method-assign]
            harness.subjects.delete("local", subject.id)
        put(key, data, **more)

    harness.store.put = delete_first  # type: ignore[method-assign,assignment]
    with pytest.raises(SubjectNotFound):
        add(harness, subject)
    harness.maintenance.finish_erasures()
    assert in_store(harness, b"photo of a face") == []
    assert not [key for key in harness.store.objects if "/subjects/" in key]


def test_a_server_that_dies_while_it_takes_photos_does_no_harm(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is there, and one of the photos: the job is tried, fails, and takes the photo along."""
    subject = harness.ready_subject()
    put = harness.store.put

    class Died(BaseException):
        pass

    def die(key: str, data: bytes, **more: str) -> None:
        if key.endswith("1.png"):
            raise Died
        put(key, data, **more)

    harness.store.put = die  # type: ignore[method-assign,assignment]
    with pytest.raises(Died):
        add(harness, subject)
    harness.store.put = put  # type: ignore[method-assign]
    assert now(harness, subject) == subject
    assert in_store(harness, MORE[0])
    (job_id,) = [job for _, job in harness.archive.all_accepted()]
    harness.jobs.restore("local", job_id)
    job = harness.jobs.get("local", job_id)
    harness.claims.fail(harness.claim(PERSONALIZE, job.ref), SubjectNotFound())
    assert harness.jobs.get("local", job_id).state is JobState.FAILED
    assert now(harness, subject) == subject
    assert in_store(harness, MORE[0]) == []


def test_an_old_job_that_is_settled_again_does_not_undo_a_new_one(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    old = harness.jobs.get("local", subject.job_id)
    refined, job = add(harness, subject)
    harness.jobs.settle(old)
    assert now(harness, subject) == refined
    assert [harness.store.get(key) for key in refined.photos] == MORE
    learn(harness, job)
    done = now(harness, subject)
    harness.jobs.settle(old)
    assert now(harness, subject) == done


def test_a_new_job_is_not_lost_when_the_document_was_overwritten(harness: ServiceHarness) -> None:
    """A process that settles the old job may read the document before photos are added, and write it after."""
    subject = harness.ready_subject()
    _, job = add(harness, subject)
    harness.documents.put(subject)
    learn(harness, job)
    assert harness.subjects.weights("local", subject.id) == b"better weights"
    assert now(harness, subject).job_id == job.id


def test_the_picture_and_weights_of_the_prediction_stay(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    assert subject.weights is not None
    with_preview = subject.weights.model_copy(update={"preview_key": "local/jobs/x/preview.lidb"})
    harness.documents.put(subject.model_copy(update={"weights": with_preview}))
    learn(harness, add(harness, subject)[1])
    weights = now(harness, subject).weights
    assert weights is not None
    assert weights.preview_key == with_preview.preview_key
    assert weights.refined_key != with_preview.refined_key
