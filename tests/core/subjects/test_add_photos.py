from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import BrokerUnavailable, InvalidInput, QueueFull, StoreUnavailable, SubjectBusy, SubjectNotFound
from core.jobs.ledger import Ledger
from core.queue.connection import connect
from core.records import Consent, Job, JobKind, JobState, PersonalizeRequest, Subject, SubjectStatus
from core.settings import Settings
from core.storage import keys
from core.subjects import add_photos as photos

if TYPE_CHECKING:
    from tests.harness import Desk

PERSONALIZE = JobKind.PERSONALIZE
MORE = [b"another photo of a face", b"a third photo of a face"]


def add(desk: Desk, subject: Subject, pictures: list[bytes] = MORE, **options: object) -> tuple[Subject, Job]:
    consent = Consent(at=2.0, version="1")
    return photos.add_photos(desk.jobs, subject.tenant, subject.id, pictures, consent=consent, **options)  # type: ignore[arg-type]


def request_of(desk: Desk, job: Job) -> PersonalizeRequest:
    accepted = desk.jobs.archive.accepted("local", job.id)
    assert accepted is not None
    assert isinstance(accepted.request, PersonalizeRequest)
    return accepted.request


def now(desk: Desk, subject: Subject) -> Subject:
    return desk.jobs.subject("local", subject.id)


def in_store(desk: Desk, secret: bytes) -> list[str]:
    return [key for key, data in desk.store.objects.items() if secret in data]


def learn(desk: Desk, job: Job, made: bytes = b"better weights") -> None:
    """What a worker does with the job."""
    assignment = desk.claim(PERSONALIZE, job.ref)
    result = desk.weights_of(assignment)
    desk.store.put(result.weights.refined_key, made)
    assert desk.work.commit(assignment, result, {"finetune": 2.0})


def test_the_subject_goes_on_with_its_weights_until_better_ones_are_there(desk: Desk) -> None:
    before = desk.ready_subject()
    refined, job = add(desk, before, steps=7, seed=3)
    assert desk.notifier.notified[-1] == ("personalize", job.ref)
    assert now(desk, before) == refined
    assert (refined.status, refined.refining, refined.job_id) == (SubjectStatus.READY, True, job.id)
    request = request_of(desk, job)
    assert before.weights is not None
    assert (request.start_key, request.steps, request.seed) == (before.weights.refined_key, 7, 3)
    assert [desk.store.get(key) for key in request.photos] == MORE

    pinned = desk.generation(before)
    assert desk.claim(JobKind.GENERATE, pinned.ref).request.weights_key == before.weights.refined_key
    assert desk.jobs.weights("local", before.id) == b"weights of a face"
    learn(desk, job)
    after = now(desk, before)
    assert (after.status, after.refining, after.photos, after.photos_sent) == (SubjectStatus.READY, False, (), 3)
    assert desk.jobs.weights("local", before.id) == b"better weights"
    assert desk.store.get(before.weights.refined_key) == b"weights of a face", "pictures that wait are made of it"
    assert in_store(desk, b"photo of a face") == []
    assert after.seconds == {"finetune": 2.0}
    assert (after.consent, after.consents) == (before.consent, (Consent(at=2.0, version="1"),))


def test_photos_that_were_kept_are_learnt_from_again(desk: Desk) -> None:
    subject, first = desk.jobs.create_subject(
        "local", [b"first"], consent=Consent(at=1.0, version="1"), keep_photos=True
    )
    learn(desk, first)
    kept = now(desk, subject).photos
    assert len(kept) == 1
    _, job = add(desk, subject)
    request = request_of(desk, job)
    assert request.start_key == "", "it begins anew, from all of them"
    assert [desk.store.get(key) for key in request.photos] == [b"first", *MORE]
    learn(desk, job)
    assert now(desk, subject).photos == request.photos
    _, last = add(desk, subject, [b"fourth"], keep_photos=False)
    assert len(request_of(desk, last).photos) == 4
    learn(desk, last)
    assert now(desk, subject).photos == ()
    assert [key for key in desk.store.objects if key.endswith(".png")] == []


@pytest.mark.parametrize("ending", ["fail", "cancel"])
def test_a_job_that_comes_to_nothing_leaves_the_subject_as_it_was(desk: Desk, ending: str) -> None:
    before = desk.ready_subject()
    _, job = add(desk, before)
    if ending == "fail":
        desk.work.fail(desk.claim(PERSONALIZE, job.ref), StoreUnavailable("It burnt down."))
    else:
        desk.jobs.cancel("local", job.id)
    after = now(desk, before)
    assert (after.status, after.refining, after.weights) == (SubjectStatus.READY, False, before.weights)
    assert (after.error is not None) == (ending == "fail")
    assert after.seconds == before.seconds
    assert in_store(desk, b"photo of a face") == []
    assert desk.jobs.weights("local", before.id) == b"weights of a face"
    learn(desk, add(desk, before)[1])
    assert now(desk, before).error is None


def test_a_subject_that_failed_begins_anew(desk: Desk) -> None:
    subject, job = desk.new_subject()
    desk.work.fail(desk.claim(PERSONALIZE, job.ref), StoreUnavailable())
    again, second = add(desk, subject)
    assert (again.status, again.refining) == (SubjectStatus.PERSONALIZING, False)
    assert request_of(desk, second).start_key == ""
    learn(desk, second)
    assert now(desk, subject).status is SubjectStatus.READY


def test_one_job_at_a_time(desk: Desk) -> None:
    subject, first = desk.new_subject()
    with pytest.raises(SubjectBusy, match=first.id):
        add(desk, subject)
    learn(desk, first)
    _, job = add(desk, subject)
    before = dict(desk.store.objects)
    with pytest.raises(SubjectBusy, match=job.id):
        add(desk, subject)
    assert desk.store.objects == before
    desk.ledger.redis.set(f"hdb:local:adding:{subject.id}", "1", ex=30)
    learn(desk, job)
    with pytest.raises(SubjectBusy, match="just now"):
        add(desk, subject)
    desk.ledger.redis.delete(f"hdb:local:adding:{subject.id}")
    add(desk, subject)
    assert not list(desk.ledger.redis.scan_iter("hdb:*:adding:*"))


def test_a_subject_has_so_many_photos_at_most(desk: Desk) -> None:
    subject = desk.ready_subject()
    with pytest.raises(InvalidInput, match="send 23 at most"):
        add(desk, subject, [b"p"] * 24)
    learn(desk, add(desk, subject, [b"p"] * 23)[1])
    with pytest.raises(InvalidInput, match="stay as they are"):
        add(desk, subject, [b"p"])


def test_nobody_else_can_add_photos(desk: Desk) -> None:
    subject = desk.ready_subject()
    before = dict(desk.store.objects)
    with pytest.raises(SubjectNotFound):
        photos.add_photos(desk.jobs, "other", subject.id, MORE, consent=Consent(at=2.0, version="1"))
    assert desk.store.objects == before


def test_what_cannot_be_queued_changes_nothing(desk: Desk) -> None:
    subject = desk.ready_subject()
    before = dict(desk.store.objects)
    desk.jobs.refuse_when_full = lambda kind: None  # type: ignore[method-assign]
    full = desk.ledger.limits
    object.__setattr__(full, "queue_limit", 1)
    waiting = desk.new_subject()[1]
    with_waiting = dict(desk.store.objects)
    with pytest.raises(QueueFull):
        add(desk, subject)
    object.__setattr__(full, "queue_limit", 20)
    assert desk.store.objects == with_waiting
    desk.jobs.delete_subject("local", waiting.subject_id)
    live = desk.jobs.ledger
    desk.jobs.ledger = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), live.limits)
    with pytest.raises(BrokerUnavailable):
        add(desk, subject)
    desk.jobs.ledger = live
    assert {key: desk.store.objects[key] for key in before} == before


@pytest.mark.parametrize("when", ["queued", "running"])
def test_deletion_wins(desk: Desk, when: str) -> None:
    subject = desk.ready_subject()
    _, job = add(desk, subject)
    assignment = desk.claim(PERSONALIZE, job.ref) if when == "running" else None
    receipt = desk.jobs.delete_subject("local", subject.id)
    assert {subject.job_id, job.id} <= set(receipt.job_ids)
    if assignment:
        assert not desk.work.commit(assignment, desk.weights_of(assignment), {})
    for secret in (b"photo of a face", b"weights of a face"):
        assert in_store(desk, secret) == []
    with pytest.raises(SubjectNotFound):
        add(desk, subject)


def test_a_deletion_at_the_last_moment_wins_as_well(desk: Desk) -> None:
    subject = desk.ready_subject()
    put = desk.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key == keys.document("local", subject.id):
            desk.store.put = put  # type: ignore[method-assign]
            desk.jobs.delete_subject("local", subject.id)
        put(key, data, **more)

    desk.store.put = delete_first  # type: ignore[method-assign,assignment]
    with pytest.raises(SubjectNotFound):
        add(desk, subject)
    desk.reaper.finish_erasures()
    assert in_store(desk, b"photo of a face") == []
    assert not [key for key in desk.store.objects if "/subjects/" in key]


def test_a_server_that_dies_while_it_takes_photos_harms_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is there, and one of the photos: the job is tried, fails, and takes the photo along."""
    subject = desk.ready_subject()
    put = desk.store.put

    class Died(BaseException):
        pass

    def die(key: str, data: bytes, **more: str) -> None:
        if key.endswith("1.png"):
            raise Died
        put(key, data, **more)

    desk.store.put = die  # type: ignore[method-assign,assignment]
    with pytest.raises(Died):
        add(desk, subject)
    desk.store.put = put  # type: ignore[method-assign]
    assert now(desk, subject) == subject
    assert in_store(desk, MORE[0])
    (job_id,) = [job for _, job in desk.jobs.archive.all_accepted()]
    desk.jobs.restore("local", job_id)
    job = desk.jobs.job("local", job_id)
    desk.work.fail(desk.claim(PERSONALIZE, job.ref), SubjectNotFound())
    assert desk.jobs.job("local", job_id).state is JobState.FAILED
    assert now(desk, subject) == subject
    assert in_store(desk, MORE[0]) == []


def test_an_old_job_that_is_settled_again_does_not_undo_a_new_one(desk: Desk) -> None:
    subject = desk.ready_subject()
    old = desk.jobs.job("local", subject.job_id)
    refined, job = add(desk, subject)
    desk.jobs.settle(old)
    assert now(desk, subject) == refined
    assert [desk.store.get(key) for key in refined.photos] == MORE
    learn(desk, job)
    done = now(desk, subject)
    desk.jobs.settle(old)
    assert now(desk, subject) == done


def test_a_new_job_is_not_lost_when_the_document_was_overwritten(desk: Desk) -> None:
    """Somebody who settles the old job may read the document before photos are added, and write it after."""
    subject = desk.ready_subject()
    _, job = add(desk, subject)
    desk.jobs.archive.put_subject(subject)
    learn(desk, job)
    assert desk.jobs.weights("local", subject.id) == b"better weights"
    assert now(desk, subject).job_id == job.id


def test_the_picture_and_weights_of_the_prediction_stay(desk: Desk) -> None:
    subject = desk.ready_subject()
    assert subject.weights is not None
    shown = subject.weights.model_copy(update={"preview_key": "local/jobs/x/preview.lidb"})
    desk.jobs.archive.put_subject(subject.model_copy(update={"weights": shown}))
    learn(desk, add(desk, subject)[1])
    weights = now(desk, subject).weights
    assert weights is not None
    assert weights.preview_key == shown.preview_key
    assert weights.refined_key != shown.refined_key
