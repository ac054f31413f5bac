from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import InternalFault
from core.jobs.events import Event, EventType, event_key, last_event, order_of, read_event
from core.jobs.ledger import Hold, Progress
from core.records import Image, Job, JobKind, JobState, Preview

if TYPE_CHECKING:
    from tests.harness import Desk

PREVIEW = Preview(weights_key="a/b", image=Image(id="img_1", key="a/c", seed=0, width=8, height=8))


def told(desk: Desk, job: Job) -> list[Event]:
    stream: Any = desk.ledger.redis.xrange(event_key(job.ref))
    return [read_event(event_id, fields) for event_id, fields in stream]


def record(desk: Desk, job: Job) -> Job:
    found = desk.ledger.get(job.ref)
    assert found is not None
    return found


def commit(desk: Desk, job: Job) -> None:
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    desk.work.commit(assignment, desk.weights_of(assignment), {"finetune": 1.0})


def commit_twice(desk: Desk, job: Job) -> None:
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    result = desk.weights_of(assignment)
    for _ in range(2):  # as a worker does that did not hear the first answer
        desk.ledger.finish(assignment.claim, JobState.SUCCEEDED, result=result)
    desk.jobs.settle(record(desk, job))


def fail(desk: Desk, job: Job) -> None:
    desk.work.fail(desk.claim(JobKind.PERSONALIZE, job.ref), InternalFault("no"))


def cancel_queued(desk: Desk, job: Job) -> None:
    desk.jobs.cancel("local", job.id)


def cancel_running(desk: Desk, job: Job) -> None:
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    for _ in range(2):
        desk.jobs.cancel("local", job.id)
    desk.work.cancel(assignment)


def die_three_times(desk: Desk, job: Job) -> None:
    for _ in range(3):
        desk.claim(JobKind.PERSONALIZE, job.ref)
        desk.let_lease_end(job)
        desk.reaper.reap()


def give_up(desk: Desk, job: Job) -> None:
    for _ in range(3):
        assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
        desk.work.give_back(assignment, counted=True, error=InternalFault("no"))


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
def test_every_change_is_told_once(desk: Desk, end: Callable[[Desk, Job], None], events: list[EventType]) -> None:
    _, job = desk.new_subject()
    end(desk, job)
    seen = told(desk, job)
    assert [event.type for event in seen] == events
    assert [event.version for event in seen] == list(range(1, len(events) + 1))
    ids = [order_of(event.id) for event in seen]
    assert ids == sorted(set(ids))
    assert record(desk, job).event_id == seen[-1].id
    over = desk.jobs.archive.outcome("local", job.id)
    assert over is not None
    remade = last_event(over)
    assert remade.model_copy(update={"at": 0.0}) == seen[-1].model_copy(update={"at": 0.0})


def test_an_event_says_how_the_job_stood(desk: Desk) -> None:
    _, job = desk.new_subject()
    claim = desk.claim(JobKind.PERSONALIZE, job.ref).claim
    desk.ledger.beat(claim, Progress("finetune", 3, 40), event="progress")
    desk.ledger.beat(claim, Progress("finetune", 4, 40))
    event = told(desk, job)[-1]
    assert (event.type, event.state, event.attempt) == (EventType.PROGRESS, JobState.RUNNING, 1)
    assert (event.stage, event.step, event.total, event.preview) == ("finetune", 3, 40, None)


def test_a_stream_keeps_the_last_events_and_goes_after_a_day(desk: Desk) -> None:
    _, job = desk.new_subject()
    claim = desk.claim(JobKind.PERSONALIZE, job.ref).claim
    for step in range(500):
        desk.ledger.beat(claim, Progress("finetune", step, 500), event="progress")
    desk.ledger.finish(claim, JobState.FAILED)
    seen = told(desk, job)
    assert 200 <= len(seen) <= 300
    assert [event.version for event in seen] == list(range(503 - len(seen) + 1, 504))
    assert seen[-1].type.is_last
    assert 86_000 < desk.ledger.redis.ttl(event_key(job.ref)) <= 86_400  # type: ignore[operator]


def test_a_preview_is_told_once_and_stays_in_the_record(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    for _ in range(2):  # the first answer was lost on its way
        assert desk.ledger.preview(assignment.claim, PREVIEW) is Hold.HELD
    assert [event.preview for event in told(desk, job)] == [None, None, PREVIEW]
    assert record(desk, job).preview == PREVIEW
    desk.work.commit(assignment, desk.weights_of(assignment), {})
    assert record(desk, job).preview == PREVIEW
    assert desk.jobs.subject("local", subject.id).preview_image == PREVIEW.image


@pytest.mark.parametrize("end", [fail, cancel_queued, die_three_times, give_up])
def test_a_preview_goes_with_its_attempt(desk: Desk, end: Callable[[Desk, Job], None]) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    desk.ledger.preview(assignment.claim, PREVIEW)
    desk.ledger.give_back(assignment.claim, counted=False)
    assert record(desk, job).preview is None
    assert desk.ledger.preview(assignment.claim, PREVIEW) is Hold.LOST
    end(desk, job)
    assert record(desk, job).preview is None
    assert desk.jobs.subject("local", subject.id).preview_image is None


def test_a_failed_job_has_no_preview(desk: Desk) -> None:
    _, job = desk.new_subject()
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    desk.ledger.preview(assignment.claim, PREVIEW)
    desk.jobs.cancel("local", job.id)
    assert desk.ledger.preview(assignment.claim, PREVIEW) is Hold.CANCEL
    desk.work.cancel(assignment)
    assert record(desk, job).preview is None


def test_nothing_is_left_of_an_erased_job(desk: Desk) -> None:
    subject, job = desk.new_subject()
    assignment = desk.claim(JobKind.PERSONALIZE, job.ref)
    desk.jobs.delete_subject("local", subject.id)
    assert desk.ledger.preview(assignment.claim, PREVIEW) is Hold.GONE
    assert told(desk, job) == []


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "a-b", "1-1-1", "1-2 ", " 1-2", "१-१x", "1" * 19 + "-0", "0-" + "1" * 19]
)
def test_what_is_no_id_of_an_event(text: str) -> None:
    with pytest.raises(ValueError, match="not an event's id"):
        order_of(text)


def test_ids_sort_by_number() -> None:
    assert order_of("9-10") < order_of("10-2") < order_of("10-11") <= order_of("9" * 18 + "-" + "9" * 18)
