from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import InternalFault
from core.jobs.events import Event, EventType, event_key, last_event, order_of, read_event
from core.jobs.ledger import LeaseState, Progress
from core.records import Image, Job, JobKind, JobState, Preview
from core.storage.keys import image_id
from tests.faults.world import finish

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

PREVIEW = Preview(image=Image(id="img_1", seed=0, width=8, height=8))


def told(harness: ServiceHarness, job: Job) -> list[Event]:
    stream: Any = harness.ledger.redis.xrange(event_key(job.ref))
    return [read_event(event_id, fields) for event_id, fields in stream]


def record(harness: ServiceHarness, job: Job) -> Job:
    found = harness.ledger.get(job.ref)
    assert found is not None
    return found


def commit(harness: ServiceHarness, job: Job) -> None:
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    harness.claims.commit(assignment, harness.weights_of(assignment), {"finetune": 1.0})


def commit_twice(harness: ServiceHarness, job: Job) -> None:
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    result = harness.weights_of(assignment)
    for _ in range(2):  # as a worker does that did not hear the first answer
        harness.ledger.finish(assignment.claim, JobState.SUCCEEDED, result=result)
    harness.jobs.settle(record(harness, job))


def fail(harness: ServiceHarness, job: Job) -> None:
    harness.claims.fail(harness.claim(JobKind.PERSONALIZE, job.ref), InternalFault("no"))


def cancel_queued(harness: ServiceHarness, job: Job) -> None:
    harness.jobs.cancel("local", job.id)


def cancel_running(harness: ServiceHarness, job: Job) -> None:
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    for _ in range(2):
        harness.jobs.cancel("local", job.id)
    harness.claims.cancel(assignment)


def die_three_times(harness: ServiceHarness, job: Job) -> None:
    for _ in range(3):
        harness.claim(JobKind.PERSONALIZE, job.ref)
        harness.let_lease_end(job)
        harness.services.recovery.reap()


def give_up(harness: ServiceHarness, job: Job) -> None:
    for _ in range(3):
        assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
        harness.claims.give_back(assignment, counted=True, error=InternalFault("no"))


QUEUED, RUNNING = EventType.QUEUED, EventType.RUNNING


@pytest.mark.parametrize(
    ("end", "events"),
    [
        (commit, [QUEUED, RUNNING, EventType.SUCCEEDED]),
        (commit_twice, [QUEUED, RUNNING, EventType.SUCCEEDED]),
        (fail, [QUEUED, RUNNING, EventType.FAILED]),
        (cancel_queued, [QUEUED, EventType.CANCELED]),
        (cancel_running, [QUEUED, RUNNING, EventType.CANCEL_REQUESTED, EventType.CANCELED]),
        (die_three_times, [QUEUED, RUNNING] * 3 + [EventType.FAILED]),
        (give_up, [QUEUED, RUNNING] * 3 + [EventType.FAILED]),
    ],
)
def test_every_change_is_told_once(
    harness: ServiceHarness, end: Callable[[ServiceHarness, Job], None], events: list[EventType]
) -> None:
    _, job = harness.new_subject()
    end(harness, job)
    seen = told(harness, job)
    assert [event.type for event in seen] == events
    assert [event.version for event in seen] == list(range(1, len(events) + 1))
    ids = [order_of(event.id) for event in seen]
    assert ids == sorted(set(ids))
    assert record(harness, job).event_id == seen[-1].id
    over = harness.archive.outcome("local", job.id)
    assert over is not None
    remade = last_event(over)
    assert remade.model_copy(update={"at": 0.0}) == seen[-1].model_copy(update={"at": 0.0})


def test_an_event_says_how_the_job_stood(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    claim = harness.claim(JobKind.PERSONALIZE, job.ref).claim
    harness.ledger.beat(claim, Progress("finetune", 3, 40), event="progress")
    harness.ledger.beat(claim, Progress("finetune", 4, 40))
    event = told(harness, job)[-1]
    assert (event.type, event.state, event.attempt) == (EventType.PROGRESS, JobState.RUNNING, 1)
    assert (event.stage, event.step, event.total, event.preview) == ("finetune", 3, 40, None)


def test_a_stream_keeps_the_last_events_and_goes_after_a_day(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    claim = harness.claim(JobKind.PERSONALIZE, job.ref).claim
    for step in range(500):
        harness.ledger.beat(claim, Progress("finetune", step, 500), event="progress")
    harness.ledger.finish(claim, JobState.FAILED)
    seen = told(harness, job)
    assert 200 <= len(seen) <= 300
    assert [event.version for event in seen] == list(range(503 - len(seen) + 1, 504))
    assert seen[-1].type.is_last
    assert 86_000 < harness.ledger.redis.ttl(event_key(job.ref)) <= 86_400  # type: ignore[operator]


def test_a_job_that_is_over_is_small_and_soon_one_key(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    redis = harness.ledger.redis
    job = harness.generation(subject)
    assignment = harness.claim(JobKind.GENERATE, job.ref)
    for step in range(20):
        harness.claims.beat(assignment, Progress("generate", step, 20), event="progress")
    finish(harness, assignment)
    stays = [key for key in redis.scan_iter(f"*{job.id}*") if redis.ttl(key) == -1 or "events" not in key]
    assert len(stays) == 1
    assert redis.memory_usage(stays[0]) <= 2048
    assert 0 < redis.ttl(event_key(job.ref)) <= 600  # type: ignore[operator]
    assert harness.jobs.get("local", job.id).state is JobState.SUCCEEDED


def test_a_preview_is_told_once_and_stays_in_the_record(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    for _ in range(2):  # the first answer was lost on its way
        assert harness.ledger.preview(assignment.claim, PREVIEW) is LeaseState.HELD
    assert [event.preview for event in told(harness, job)] == [None, None, PREVIEW]
    own = PREVIEW.image.model_copy(update={"id": image_id(job.id, 0)})
    assert record(harness, job).preview == Preview(image=own), "with the ids of this job, whatever Redis says"
    harness.claims.commit(assignment, harness.weights_of(assignment), {})
    assert record(harness, job).preview == Preview(image=own)
    assert harness.subjects.get("local", subject.id).preview_image == own


@pytest.mark.parametrize("end", [fail, cancel_queued, die_three_times, give_up])
def test_a_preview_goes_with_its_attempt(harness: ServiceHarness, end: Callable[[ServiceHarness, Job], None]) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    harness.ledger.preview(assignment.claim, PREVIEW)
    harness.ledger.give_back(assignment.claim, counted=False)
    assert record(harness, job).preview is None
    assert harness.ledger.preview(assignment.claim, PREVIEW) is LeaseState.LOST
    end(harness, job)
    assert record(harness, job).preview is None
    assert harness.subjects.get("local", subject.id).preview_image is None


def test_a_failed_job_has_no_preview(harness: ServiceHarness) -> None:
    _, job = harness.new_subject()
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    harness.ledger.preview(assignment.claim, PREVIEW)
    harness.jobs.cancel("local", job.id)
    assert harness.ledger.preview(assignment.claim, PREVIEW) is LeaseState.CANCEL
    harness.claims.cancel(assignment)
    assert record(harness, job).preview is None


def test_nothing_is_left_of_an_erased_job(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
    harness.subjects.delete("local", subject.id)
    assert harness.ledger.preview(assignment.claim, PREVIEW) is LeaseState.GONE
    assert told(harness, job) == []


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "a-b", "1-1-1", "1-2 ", " 1-2", "१-१x", "1" * 19 + "-0", "0-" + "1" * 19]
)
def test_what_is_no_id_of_an_event(text: str) -> None:
    with pytest.raises(ValueError, match="not an event's id"):
        order_of(text)


def test_ids_sort_by_number() -> None:
    assert order_of("9-10") < order_of("10-2") < order_of("10-11") <= order_of("9" * 18 + "-" + "9" * 18)


def test_events_and_the_record_say_how_much_of_all_is_done(harness):
    _, job = harness.new_subject()
    claim = harness.claim(JobKind.PERSONALIZE, job.ref).claim
    for share, left in ((0.02, None), (0.5, 7.5)):
        harness.ledger.beat(claim, Progress("finetune", 1, 2, share, left), event="progress")
        for seen in (told(harness, job)[-1], record(harness, job)):
            assert (seen.share, seen.seconds_left) == (share, left)
    harness.ledger.give_back(claim, counted=True)
    assert (record(harness, job).share, record(harness, job).seconds_left) == (0.0, None)
