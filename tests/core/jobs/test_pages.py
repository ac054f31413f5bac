from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from core.errors import BrokerUnavailable, InternalFault, JobNotFound
from core.jobs import pages
from core.jobs.ledger import Ledger
from core.jobs.pages import Wanted
from core.queue.connection import connect
from core.records import Job, JobKind, JobState, Subject
from core.settings import Settings

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

EVERY = Wanted()


def generation(harness: ServiceHarness, subject: Subject, **changes: object) -> Job:
    """One that is younger than all others: ids of one millisecond are in no order."""
    time.sleep(0.002)
    return harness.generation(subject, **changes)


def ids(harness: ServiceHarness, wanted: Wanted = EVERY, tenant: str = "local") -> list[str]:
    """The jobs of all pages, two a page."""
    found, after = [], ""
    for _ in range(50):
        page = harness.jobs.page(tenant, wanted, limit=2, after=after)
        assert len(page.jobs) <= 2
        found += [job.id for job, _ in page.jobs]
        if page.after is None:
            return found
        after = page.after
    raise AssertionError("there is no last page")


@pytest.fixture
def some(harness: ServiceHarness) -> dict[str, Job]:
    """One job for each way a job can stand, oldest first; the first is the subject's own."""
    subject = harness.ready_subject()
    made = {"personalized": harness.jobs.job("local", subject.job_id)}
    for name in ("queued", "running", "failed", "canceled"):
        made[name] = generation(harness, subject, prompt=f"a {name} [V] face")
    harness.claim(JobKind.GENERATE, made["running"].ref)
    harness.work.fail(harness.claim(JobKind.GENERATE, made["failed"].ref), InternalFault("no"))
    harness.jobs.cancel("local", made["canceled"].id)
    return made


def names(some: dict[str, Job], found: list[str]) -> list[str]:
    known = {job.id: name for name, job in some.items()}
    return [known[job_id] for job_id in found]


@pytest.mark.parametrize("redis", ["there", "empty"])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), ["canceled", "failed", "running", "queued", "personalized"]),
        (Wanted(state=JobState.SUCCEEDED), ["personalized"]),
        (Wanted(state=JobState.FAILED), ["failed"]),
        (Wanted(state=JobState.CANCELED, kind=JobKind.PERSONALIZE), []),
        (Wanted(kind=JobKind.PERSONALIZE), ["personalized"]),
        (Wanted(kind=JobKind.GENERATE, state=JobState.CANCELED), ["canceled"]),
    ],
)
def test_filters_find_what_they_say(
    harness: ServiceHarness, some, redis: str, wanted: Wanted, expected: list[str]
) -> None:
    if redis == "empty":
        harness.ledger.redis.flushall()
    assert names(some, ids(harness, wanted)) == expected


def test_what_is_not_over_is_found_as_it_stands_now(harness: ServiceHarness, some) -> None:
    assert names(some, ids(harness, Wanted(state=JobState.QUEUED))) == ["queued"]
    assert names(some, ids(harness, Wanted(state=JobState.RUNNING))) == ["running"]
    harness.ledger.redis.flushall()  # what ran is queued again, as far as anybody can know
    assert names(some, ids(harness, Wanted(state=JobState.QUEUED))) == ["running", "queued"]
    assert ids(harness, Wanted(state=JobState.RUNNING)) == []


def test_what_is_over_but_not_written_down_yet_is_found(harness: ServiceHarness, some) -> None:
    (claim,) = harness.ledger.claim(JobKind.GENERATE, some["queued"].ref)
    harness.ledger.finish(claim, JobState.FAILED)  # and nobody has settled it
    assert names(some, ids(harness, Wanted(state=JobState.FAILED))) == ["failed", "queued"]
    assert ids(harness, Wanted(state=JobState.QUEUED)) == []


def test_the_jobs_of_one_subject(harness: ServiceHarness, some) -> None:
    other = harness.ready_subject()
    mine = generation(harness, other)
    assert ids(harness, Wanted(subject_id=other.id)) == [mine.id, other.job_id]
    assert ids(harness, Wanted(subject_id=other.id, kind=JobKind.PERSONALIZE)) == [other.job_id]
    assert ids(harness, Wanted(subject_id=other.id, state=JobState.QUEUED)) == [mine.id]
    assert ids(harness, Wanted(subject_id=other.id), tenant="another") == []
    assert ids(harness, tenant="another") == []


def test_positions_come_along(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    jobs = [generation(harness, subject) for _ in range(3)]
    page = harness.jobs.page("local", Wanted(state=JobState.QUEUED))
    assert [(job.id, position) for job, position in page.jobs] == [
        (job.id, place) for place, job in reversed(list(enumerate(jobs)))
    ]


@pytest.mark.parametrize("redis", ["there", "empty"])
def test_an_erased_subject_takes_its_jobs_off_the_lists(harness: ServiceHarness, redis: str) -> None:
    goes, stays = harness.ready_subject(), harness.ready_subject()
    for subject in (goes, stays):
        generation(harness, subject)
    if redis == "empty":
        harness.ledger.redis.flushall()
    harness.jobs.delete_subject("local", goes.id)
    left = harness.jobs.page("local", EVERY).jobs
    assert {job.subject_id for job, _ in left} == {stays.id}
    assert len(left) == 2
    for wanted in (Wanted(subject_id=goes.id), Wanted(subject_id=goes.id, state=JobState.QUEUED)):
        assert ids(harness, wanted) == []
    assert not [key for key in harness.store.objects if goes.id in key and not key.startswith("eras")]


def test_a_refused_job_is_on_no_list(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()

    def refuse(*_: object, **__: object) -> None:
        raise BrokerUnavailable("gone")

    harness.ledger.accept = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(BrokerUnavailable):
        generation(harness, subject)
    assert ids(harness) == [subject.job_id]


def over(harness: ServiceHarness, subject: Subject, count: int) -> list[str]:
    made = []
    for _ in range(count):
        job = generation(harness, subject)
        harness.jobs.cancel("local", job.id)
        made.append(job.id)
    return made[::-1]


def test_a_page_reads_no_more_records_than_it_shows(harness: ServiceHarness) -> None:
    made = over(harness, harness.ready_subject(), 60)
    reads: list[str] = []
    get = harness.store.get

    def counting(key: str) -> bytes:
        reads.append(key)
        return get(key)

    harness.store.get = counting  # type: ignore[method-assign]
    assert [job.id for job, _ in harness.jobs.page("local", EVERY, limit=10).jobs] == made[:10]
    assert reads == [], "Redis knows all of them"
    harness.ledger.redis.flushall()
    page = harness.jobs.page("local", Wanted(state=JobState.CANCELED), limit=10, after=made[9])
    assert [job.id for job, _ in page.jobs] == made[10:20]
    assert len(reads) <= 11


def test_a_filter_that_fits_nothing_does_not_take_for_ever(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_NAMES", 4)
    monkeypatch.setattr(pages, "MOST_RECORDS", 3)
    subject = harness.ready_subject()
    made = over(harness, subject, 6)
    first = harness.jobs.page("local", Wanted(kind=JobKind.PERSONALIZE), limit=2)
    assert (first.jobs, first.after) == ([], made[3])
    assert ids(harness, Wanted(kind=JobKind.PERSONALIZE)) == [subject.job_id]
    short = harness.jobs.page("local", Wanted(subject_id=subject.id, state=JobState.FAILED), limit=2)
    assert (short.jobs, short.after) == ([], made[2])
    assert ids(harness, Wanted(subject_id=subject.id, kind=JobKind.PERSONALIZE)) == [subject.job_id]


def test_without_redis_only_what_is_over_can_be_listed(harness: ServiceHarness, some) -> None:
    harness.jobs.ledger = Ledger(connect(Settings(redis_url="redis://127.0.0.1:9/0")), harness.ledger.limits)
    with pytest.raises(BrokerUnavailable):
        harness.jobs.page("local", EVERY)
    over_jobs = harness.jobs.page("local", EVERY, limit=1)
    assert names(some, [job.id for job, _ in over_jobs.jobs]) == ["canceled"]
    with pytest.raises(JobNotFound):
        harness.jobs.standing("local", "job_x")
