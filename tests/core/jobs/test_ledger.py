from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from core.errors import InternalFault
from core.jobs.demand import Demand
from core.jobs.ledger import Claim, LeaseState, Ledger, Progress
from core.queue.notifications import ENOUGH_NOTIFICATIONS, NOTIFICATIONS
from core.records import Job, JobKind, JobState

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

GENERATE = JobKind.GENERATE


def name(short: str) -> str:
    """A job's id that ends in this."""
    return f"job_{short:0>25}"


def queue_jobs(ledger: Ledger, count: int, *, group: str = "", rows: int = 1) -> list[Job]:
    jobs = []
    for index in range(count):
        job = Job(
            id=name(f"{group}{index}"),
            tenant="local",
            kind=GENERATE,
            subject_id="sub_" + "1" * 25,
            state=JobState.QUEUED,
            created_at=1000.0 + index,
        )
        assert ledger.accept(job, Demand(group=group, rows=rows)) == "accepted"
        jobs.append(job)
    return jobs


def state_of(ledger: Ledger, job: Job) -> JobState:
    found = ledger.get(job.ref)
    assert found is not None
    return found.state


def end_lease(ledger: Ledger, job: Job) -> None:
    ledger.redis.zadd("hdb:running", {job.ref: 1}, xx=True)


@pytest.fixture
def ledger(harness: ServiceHarness) -> Ledger:
    return harness.ledger


def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    found = ledger.get(job.ref)
    assert found is not None
    ((event_id, _),) = ledger.redis.xrange(f"hdb:local:events:{job.id}")  # type: ignore[misc]
    assert found == job.model_copy(update={"version": 1, "event_id": event_id})
    assert ledger.get("local/job_unknown") is None
    assert ledger.accept(job) == "known"


def test_a_job_is_never_ahead_of_the_clock_that_it_is_queued_by(ledger: Ledger) -> None:
    job = Job(
        id=name("0"),
        tenant="local",
        kind=GENERATE,
        subject_id="sub_" + "1" * 25,
        state=JobState.QUEUED,
        created_at=1000.9996,
    )
    assert ledger.accept(job) == "accepted"
    found = ledger.get(job.ref)
    assert found is not None
    assert found.created_at == 1000.999
    assert ledger.redis.zscore("hdb:queued:generate", job.ref) == 1000999


def test_a_claim_moves_the_job_and_counts(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (claim,) = ledger.claim(GENERATE, job.ref)
    found = ledger.get(job.ref)
    assert found is not None
    assert (found.state, found.attempt, found.fence) == (JobState.RUNNING, 1, claim.fence)
    assert found.version > 1
    assert ledger.claim(GENERATE, job.ref) == []
    assert (ledger.queued(GENERATE), ledger.running()) == (0, 1)


def test_a_notification_of_a_job_that_is_taken_claims_the_oldest(ledger: Ledger) -> None:
    first, second, third = queue_jobs(ledger, 3)
    assert ledger.claim(GENERATE, second.ref)[0].ref == second.ref
    assert ledger.claim(GENERATE, second.ref)[0].ref == first.ref
    assert ledger.claim(JobKind.PERSONALIZE, third.ref) == []


def test_many_hands_claim_each_job_once(ledger: Ledger) -> None:
    jobs = queue_jobs(ledger, 20)
    with ThreadPoolExecutor(8) as pool:
        claims = [claim for got in pool.map(lambda _: ledger.claim(GENERATE, ""), range(40)) for claim in got]
    assert sorted(claim.ref for claim in claims) == sorted(job.ref for job in jobs)


def test_a_batch_takes_its_kind_along_up_to_its_limits(ledger: Ledger) -> None:
    queue_jobs(ledger, 3, group="a", rows=2)
    queue_jobs(ledger, 2, group="b", rows=2)
    refs = [claim.ref for claim in ledger.claim(GENERATE, f"local/{name('a1')}", max_jobs=8, max_rows=4)]
    assert refs == [f"local/{name(each)}" for each in ("a1", "a0")]
    assert len(ledger.claim(GENERATE, f"local/{name('b0')}", max_jobs=1, max_rows=99)) == 1


def test_a_job_on_its_second_attempt_runs_alone(ledger: Ledger) -> None:
    jobs = queue_jobs(ledger, 3, group="a")
    first = ledger.claim(GENERATE, jobs[0].ref, max_jobs=3, max_rows=9)
    assert len(first) == 3
    for job in jobs:
        end_lease(ledger, job)
    assert sorted(ledger.reap()[0]) == sorted(job.ref for job in jobs)
    for _ in jobs:
        assert [claim.attempt for claim in ledger.claim(GENERATE, "", max_jobs=3, max_rows=9)] == [2]


def test_the_lease_is_renewed_only_with_the_current_number(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (old,) = ledger.claim(GENERATE, job.ref)
    assert ledger.beat(old, Progress("finetune", 3, 9), event="progress") is LeaseState.HELD
    end_lease(ledger, job)
    assert ledger.reap() == ([job.ref], [])
    assert ledger.beat(old, Progress()) is LeaseState.LOST
    (new,) = ledger.claim(GENERATE, job.ref)
    assert new.fence > old.fence
    assert ledger.beat(old, Progress()) is LeaseState.LOST
    assert ledger.finish(old, JobState.SUCCEEDED) is None
    assert ledger.give_back(old, counted=True) is None
    assert ledger.finish(new, JobState.SUCCEEDED) is JobState.SUCCEEDED


def test_who_did_not_hear_the_answer_may_ask_again(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (claim,) = ledger.claim(GENERATE, job.ref)
    for _ in range(2):
        assert ledger.finish(claim, JobState.SUCCEEDED) is JobState.SUCCEEDED
    assert ledger.finish(claim, JobState.FAILED) is JobState.SUCCEEDED
    assert ledger.give_back(claim, counted=False) is JobState.SUCCEEDED


def test_numbers_are_never_used_again_not_even_when_redis_forgets(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (old,) = ledger.claim(GENERATE, job.ref)
    ledger.redis.flushall()
    queue_jobs(ledger, 1)
    (new,) = ledger.claim(GENERATE, job.ref)
    assert new.fence > old.fence
    assert ledger.finish(old, JobState.SUCCEEDED) is None


def test_a_job_whose_workers_die_fails_at_its_cap_with_the_reason(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    for attempt in (1, 2, 3):
        (claim,) = ledger.claim(GENERATE, job.ref)
        assert claim.attempt == attempt
        ledger.beat(claim, Progress("finetune", 7, 40))
        end_lease(ledger, job)
        rings, over = ledger.reap()
        assert (rings, over) == (([job.ref], []) if attempt < 3 else ([], [job.ref]))
    found = ledger.get(job.ref)
    assert found is not None
    assert found.error is not None
    assert (found.state, found.error.code) == (JobState.FAILED, "attempts-exhausted")
    assert "3 times" in found.error.detail
    assert "finetune step 7 of 40" in found.error.detail
    assert ledger.claim(GENERATE, "") == []


def test_a_faulty_attempt_counts_and_one_given_back_does_not(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    for _ in range(5):
        (claim,) = ledger.claim(GENERATE, job.ref)
        assert claim.attempt == 1
        assert ledger.give_back(claim, counted=False) is JobState.QUEUED
    for attempt in (1, 2, 3):
        (claim,) = ledger.claim(GENERATE, job.ref)
        state = ledger.give_back(claim, counted=True, error=InternalFault("It broke."))
        assert state is (JobState.QUEUED if attempt < 3 else JobState.FAILED)
    found = ledger.get(job.ref)
    assert found is not None
    assert found.error is not None
    assert found.error.detail == "It broke."


def test_a_delayed_job_is_not_claimed_before_its_time(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (claim,) = ledger.claim(GENERATE, job.ref)
    assert ledger.give_back(claim, counted=True, delay=0.2) is JobState.QUEUED
    assert ledger.claim(GENERATE, job.ref) == []
    assert ledger.reap() == ([], [])
    ledger.redis.zadd("hdb:queued:generate", {job.ref: 1})
    assert len(ledger.claim(GENERATE, job.ref)) == 1


def test_a_worker_is_notified_again_unless_a_notification_is_on_its_way(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    assert ledger.reap() == ledger.reap() == ([job.ref], [])
    ledger.redis.lpush(NOTIFICATIONS, "there is work")
    assert ledger.reap() == ([], [])
    ledger.redis.delete(NOTIFICATIONS)
    ledger.claim(GENERATE, job.ref)
    assert ledger.reap() == ([], [])


def test_no_worker_is_notified_of_the_hundredth_job(ledger: Ledger) -> None:
    job, another = queue_jobs(ledger, 2)
    ledger.redis.lpush(NOTIFICATIONS, *["there is work"] * ENOUGH_NOTIFICATIONS)
    assert ledger.accept(job.model_copy(update={"id": name("more")})) == "silent"
    assert not ledger.claim(GENERATE, job.ref).more
    ledger.redis.delete(NOTIFICATIONS)
    assert ledger.claim(GENERATE, another.ref).more
    assert not ledger.claim().more


def test_cancel_in_every_state(ledger: Ledger) -> None:
    queued, running, over = queue_jobs(ledger, 3)
    ledger.claim(GENERATE, running.ref)
    (claim,) = ledger.claim(GENERATE, over.ref)
    ledger.finish(claim, JobState.SUCCEEDED)
    assert ledger.cancel(queued.ref) == "canceled"
    assert ledger.cancel(running.ref) == "asked"
    assert ledger.cancel(over.ref) == "over"
    assert ledger.cancel("local/job_unknown") == "unknown"
    assert state_of(ledger, queued) is JobState.CANCELED
    assert ledger.claim(GENERATE, "") == []


def test_a_worker_hears_of_a_cancel_and_cannot_commit_any_more(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (claim,) = ledger.claim(GENERATE, job.ref)
    ledger.cancel(job.ref)
    assert ledger.beat(claim, Progress("denoise", 1, 2)) is LeaseState.CANCEL
    assert ledger.finish(claim, JobState.SUCCEEDED) is JobState.CANCELED


def test_a_canceled_job_whose_worker_dies_is_not_run_again(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    ledger.claim(GENERATE, job.ref)
    ledger.cancel(job.ref)
    end_lease(ledger, job)
    assert ledger.reap() == ([], [job.ref])
    assert state_of(ledger, job) is JobState.CANCELED


def test_what_is_erased_is_gone_for_everybody(ledger: Ledger) -> None:
    queued, running = queue_jobs(ledger, 2)
    (claim,) = ledger.claim(GENERATE, running.ref)
    ledger.erase([queued.ref, running.ref])
    assert ledger.beat(claim, Progress()) is LeaseState.GONE
    assert ledger.finish(claim, JobState.SUCCEEDED) is None
    # The figures of the service, and whose turn it is: they say nothing of whom.
    assert sorted(ledger.redis.keys("*")) == ["hdb:counts", "hdb:turns:generate"]
    assert not [each for each in ledger.redis.hgetall("hdb:counts") if queued.id in each or queued.tenant in each]


def test_the_queue_has_a_limit(ledger: Ledger) -> None:
    jobs = queue_jobs(ledger, ledger.limits.queue_limit)
    extra = jobs[0].model_copy(update={"id": name("extra")})
    assert ledger.accept(extra) == "share"
    assert ledger.accept(extra, bounded=False) == "accepted"
    assert ledger.position(extra) == 1  # it was made when the first one was
    assert ledger.position(jobs[3]) == 4


def test_progress_can_be_replayed(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    (claim,) = ledger.claim(GENERATE, job.ref)
    for step in range(400):
        ledger.beat(claim, Progress("denoise", step, 400), event="progress")
    events = ledger.redis.xrange(f"hdb:local:events:{name('0')}")
    assert 200 <= len(events) < 350
    assert events[-1][1]["step"] == "399"
    assert 0 < ledger.redis.pttl(f"hdb:local:events:{name('0')}") <= 24 * 3600 * 1000


def test_scripts_survive_a_redis_that_forgot_them(ledger: Ledger) -> None:
    (job,) = queue_jobs(ledger, 1)
    ledger.redis.script_flush()
    assert ledger.claim(GENERATE, job.ref) == [Claim(job.ref, 1, ledger.get(job.ref).fence)]
