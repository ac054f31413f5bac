from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from core.errors import BrokerUnavailable
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
    images = tuple(Image(id=str(seed), seed=seed, width=1, height=1) for seed in range(3))
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
    harness.subjects.delete("local", subject.id)
    found = {(each.kind.value, each.state.value) for each in usage.ended(harness.store, "local", days=2)}
    assert found == {("personalize", "succeeded"), ("generate", "canceled")}


def test_what_is_live_is_each_tenants_own(harness: ServiceHarness) -> None:
    harness.generation(harness.ready_subject())
    harness.new_subject()
    harness.claim(JobKind.PERSONALIZE)
    assert harness.ledger.live("local") == {"personalize": 0, "generate": 1, "batch": 0, "running": 1}
    assert harness.ledger.live("loc") == {"personalize": 0, "generate": 0, "batch": 0, "running": 0}


class CountingStore(MemoryStore):
    """Counts how often it is listed."""

    lists = 0

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        self.lists += 1
        return super().list(prefix, after=after)


@pytest.fixture
def used(harness: ServiceHarness) -> tuple[CountingStore, usage.Usage]:
    store = CountingStore()
    return store, usage.Usage(store, harness.ledger.redis)


def images(count: int) -> GenerateResult:
    return GenerateResult(
        images=tuple(Image(id=str(seed), key="k", seed=seed, width=1, height=1) for seed in range(count))
    )


def plain(found: list[usage.DaySum]) -> list[tuple[int, int, float]]:
    return [(sum(each.jobs.values()), each.pictures, each.seconds) for each in found]


def test_usage_is_summed_as_it_happens_and_each_job_once(used: tuple[CountingStore, usage.Usage]) -> None:
    store, counted = used
    assert counted.sums("acme", days=30) == []
    jobs = [over(state=JobState.SUCCEEDED, result=images(3), seconds={"total": 0.5}) for _ in range(40)]
    for job in jobs + jobs[:7]:
        counted.note(job)
    before = store.lists
    for _ in range(20):
        assert plain(counted.sums("acme", days=30)) == [(40, 120, 20.0)]
    assert store.lists == before, "nothing is read again"
    assert counted.sums("other", days=1) == []


@pytest.mark.parametrize("lost", ["all of it", "the names", "the sums", "the day is not whole"])
def test_what_redis_has_lost_is_summed_up_anew(
    used: tuple[CountingStore, usage.Usage], harness: ServiceHarness, lost: str
) -> None:
    _, counted = used
    redis, jobs = harness.ledger.redis, [over(state=JobState.SUCCEEDED, result=images(2)) for _ in range(9)]
    for job in jobs[:6]:
        counted.note(job)
    assert plain(counted.sums("acme", days=1)) == [(6, 12, 12.0)]
    names = {"the names": "*usage-names*", "the sums": "*:usage:*"}
    for key in redis.keys(names.get(lost, "hdb:acme:usage*")) if lost != "the day is not whole" else ():
        redis.delete(key)
    if lost == "the day is not whole":
        for key in redis.keys("*:usage:*"):
            redis.hdel(key, "whole")
    for job in jobs[6:]:
        counted.note(job)
    assert plain(counted.sums("acme", days=1)) == [(9, 18, 18.0)]


def test_a_job_of_a_day_long_ago_has_that_day_read_again(used: tuple[CountingStore, usage.Usage]) -> None:
    _, counted = used
    late = time.time() - 5 * 24 * 3600
    counted.note(over(finished_at=late))
    assert len(counted.sums("acme", days=9)) == 1
    again = over(finished_at=late)
    for job in (again, again):
        counted.note(job)
    assert [sum(each.jobs.values()) for each in counted.sums("acme", days=9)] == [2]


def test_without_redis_usage_is_read_from_the_store(
    used: tuple[CountingStore, usage.Usage], harness: ServiceHarness
) -> None:
    _, counted = used
    job = over(state=JobState.SUCCEEDED, result=images(2))
    with harness.without_redis():
        with pytest.raises(BrokerUnavailable):
            counted.note(job)
        assert plain(counted.sums("acme", days=1)) == [(1, 2, 2.0)]
    counted.note(job)
    assert plain(counted.sums("acme", days=1)) == [(1, 2, 2.0)]
