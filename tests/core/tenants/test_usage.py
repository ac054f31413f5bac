from __future__ import annotations

import time
from typing import TYPE_CHECKING

from core.ids import new_id
from core.records import GenerateResult, Image, Job, JobKind, JobState
from core.tenants import usage
from core.testing import MemoryStore

if TYPE_CHECKING:
    from tests.harness import ServiceHarness


def over(**changes: object) -> Job:
    now = time.time()
    job = Job(
        id=new_id("job"),
        tenant="acme",
        kind=JobKind.GENERATE,
        subject_id=new_id("sub"),
        state=JobState.FAILED,
        created_at=now,
        started_at=now - 2,
        finished_at=now,
    )
    return job.model_copy(update=changes)


def test_an_ended_job_is_counted_once() -> None:
    store = MemoryStore()
    images = tuple(Image(id=str(seed), key="k", seed=seed, width=1, height=1) for seed in range(3))
    job = over(state=JobState.SUCCEEDED, result=GenerateResult(images=images), seconds={"generate": 1.0, "total": 1.25})
    usage.note(store, job)
    usage.note(store, job)
    (found,) = usage.ended(store, "acme", days=1)
    assert (found.kind, found.state, found.pictures, found.seconds) == (JobKind.GENERATE, JobState.SUCCEEDED, 3, 1.25)
    assert usage.ended(store, "other", days=9) == []
    assert not any(name in key for key in store.objects for name in (job.id, job.subject_id))


def test_a_job_that_came_to_nothing_counts_its_last_attempt() -> None:
    store = MemoryStore()
    usage.note(store, over())
    usage.note(store, over(started_at=None, state=JobState.CANCELED))
    assert sorted(each.seconds for each in usage.ended(store, "acme", days=1)) == [0.0, 2.0]


def test_days_are_read_back_to_where_was_asked_and_forgotten_in_the_end() -> None:
    store = MemoryStore()
    for days in (0, 2, 500):
        usage.note(store, over(finished_at=time.time() - days * 24 * 3600))
    assert len(usage.ended(store, "acme", days=2)) == 1
    assert len(usage.ended(store, "acme", days=3)) == 2
    usage.drop_old(store)
    assert len(store.objects) == 2


def test_what_ends_is_recorded_and_keeps_it_when_the_subject_goes(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    harness.jobs.cancel("local", harness.generation(subject).id)
    harness.jobs.delete_subject("local", subject.id)
    found = {(each.kind.value, each.state.value) for each in usage.ended(harness.store, "local", days=2)}
    assert found == {("personalize", "succeeded"), ("generate", "canceled")}


def test_what_is_live_is_each_tenants_own(harness: ServiceHarness) -> None:
    harness.generation(harness.ready_subject())
    harness.new_subject()
    harness.claim(JobKind.PERSONALIZE)
    assert harness.ledger.live("local") == {"personalize": 0, "generate": 1, "batch": 0, "running": 1}
    assert harness.ledger.live("loc") == {"personalize": 0, "generate": 0, "batch": 0, "running": 0}
