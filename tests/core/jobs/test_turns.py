"""Whose turn it is: simulated workers that claim from a real Redis; time is counted in passes and in work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from core.ids import new_id
from core.jobs.demand import ANY_JOB, Demand, Offer
from core.jobs.ledger import Ledger
from core.records import Job, JobKind, JobState

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

GENERATE, PERSONALIZE = JobKind.GENERATE, JobKind.PERSONALIZE
UPLOAD_WORK = 27.0
"""Of one personalizing job of the model that ships, in pictures."""
WINDOW = 64


@dataclass
class Crew:
    """One worker, its passes, and the tenants' jobs."""

    ledger: Ledger
    passes: list[list[str]] = field(default_factory=list)
    works: dict[str, float] = field(default_factory=dict)

    def put(self, tenant: str, kind: JobKind, demand: Demand, *, batch: str = "", at: float = 0.0) -> str:
        job = Job(
            id=new_id("job"),
            tenant=tenant,
            kind=kind,
            subject_id=new_id("sub"),
            batch_id=batch,
            state=JobState.QUEUED,
            created_at=at or 1000.0 + len(self.works),
        )
        assert self.ledger.accept(job, demand, bounded=False) == "accepted"
        self.works[job.ref] = demand.work
        return job.ref

    def upload(self, tenant: str, **changes: bool) -> str:
        return self.put(tenant, PERSONALIZE, Demand(work=UPLOAD_WORK, **changes))

    def generation(self, tenant: str, n: int = 1) -> str:
        return self.put(tenant, GENERATE, Demand(group="g", rows=n, work=n))

    def item(self, tenant: str) -> str:
        return self.put(tenant, GENERATE, Demand(group="g", rows=1, work=1), batch=BATCH)

    def run(self, offer: Offer = ANY_JOB) -> list[str]:
        """One pass."""
        claims = self.ledger.claim(offer=offer, max_jobs=8, max_rows=16)
        for claim in claims:
            self.ledger.finish(claim, JobState.SUCCEEDED)
        self.passes.append([claim.ref for claim in claims])
        return self.passes[-1]


BATCH = new_id("bat")


@pytest.fixture
def crew(harness: ServiceHarness) -> Crew:
    return Crew(harness.ledger)


def feed(crew: Crew, items: Iterator[int]) -> None:
    """As the scheduler: so many items of a tenant are in the queue at a time."""
    for _ in range(WINDOW - crew.ledger.queued_items()["a"]):
        if next(items, None) is not None:
            crew.item("a")


def drain_a(crew: Crew, items: int, generations: int, meet: Callable[[int], None]) -> tuple[float, int]:
    """All of tenant a's work. Returns when it was done (in the work of all passes), and how many passes that took."""
    waiting = iter(range(items))
    for _ in range(generations):
        crew.generation("a")
    spent, left = 0.0, items + generations
    while left:
        feed(crew, waiting)
        meet(len(crew.passes))
        done = crew.run()
        spent += sum(crew.works[ref] for ref in done)
        left -= sum(ref.startswith("a/") for ref in done)
    return spent, len(crew.passes)


@pytest.mark.slow
def test_one_upload_and_one_generation_beside_ten_thousand_items(crew: Crew) -> None:
    mine: list[str] = []
    arrived = 20

    def meet(now: int) -> None:
        if now == arrived:
            mine.extend([crew.upload("b"), crew.generation("b")])

    alone, alone_passes = 10_500, math.ceil(10_500 / 8)  # full passes of nothing but a's
    shared, passes = drain_a(crew, 10_000, 500, meet)
    waits = [next(number for number, done in enumerate(crew.passes) if ref in done) - arrived for ref in mine]
    print(f"\npasses before b's upload and generation: {waits}; a: {alone_passes} passes alone, {passes} shared")  # noqa: T201
    assert max(waits) <= 2
    assert shared <= 1.05 * alone
    assert passes <= 1.05 * alone_passes + 1


def test_tenants_take_turns_by_their_work(crew: Crew) -> None:
    for _ in range(40):
        crew.generation("greedy", n=8)
        crew.generation("modest", n=1)
        crew.generation("other", n=1)
    first = [ref for _ in range(6) for ref in crew.run()]
    work: Counter[str] = Counter()
    for ref in first:
        work[ref.partition("/")[0]] += int(crew.works[ref])
    assert work["greedy"] <= max(work["modest"], work["other"]) + 8
    assert abs(work["modest"] - work["other"]) <= 2


def test_who_was_away_has_saved_nothing_up(crew: Crew) -> None:
    for _ in range(300):
        crew.generation("busy")
    for _ in range(20):
        crew.run()
    for _ in range(100):
        crew.generation("back")
    tenants = Counter(ref.partition("/")[0] for _ in range(10) for ref in crew.run())
    assert abs(tenants["busy"] - tenants["back"]) <= 10


def test_a_person_without_weights_comes_before_one_that_has_them(crew: Crew) -> None:
    old = [crew.upload("a", refines=True) for _ in range(6)]
    crew.run()
    first = [crew.upload("b") for _ in range(2)]
    order = [crew.run()[0] for _ in range(6)]
    assert order.index(first[0]) == 0
    assert order.index(first[1]) <= 2
    assert set(order) & set(old)


def test_items_have_their_turn_beside_what_never_ends_and_more_the_longer_they_wait(crew: Crew) -> None:
    seconds, _ = crew.ledger.redis.time()

    def share(waited: float) -> float:
        for _ in range(200):
            crew.put("a", GENERATE, Demand(group="g", rows=16, work=16), at=seconds)
        items = [crew.put("a", GENERATE, Demand(rows=1), batch=BATCH, at=seconds - waited) for _ in range(60)]
        done = [ref for _ in range(60) for ref in crew.run()]
        crew.ledger.redis.flushall()
        return len(set(done) & set(items)) / len(done)

    young, old = share(0), share(3600)
    assert 0.05 < young < 0.2
    assert 0.4 < old < 0.6


def test_a_job_is_done_by_a_worker_that_can_do_it(crew: Crew) -> None:
    anyone = crew.put("a", GENERATE, Demand(group="g"))
    hers = crew.put("a", GENERATE, Demand(group="g", model="new"))
    later = crew.put("a", GENERATE, Demand(group="g", format=2))
    assert crew.run(Offer(model="old", format=1)) == [anyone]
    assert crew.run(Offer(model="old", format=1)) == []
    assert crew.run(Offer(model="new", format=1)) == [hers]
    assert crew.run(Offer(model="new", format=3)) == [later]


def test_what_another_version_queued_is_found_and_what_it_took_is_left(crew: Crew) -> None:
    redis = crew.ledger.redis
    queued, taken, mine = (crew.generation("a") for _ in range(3))
    for key in redis.scan_iter("hdb:*:line:*"):  # as versions do that know no lines
        redis.zrem(key, queued)
    redis.hset(f"hdb:a:job:{taken.partition('/')[2]}", "state", "running")
    assert crew.run() == [mine]
    assert crew.ledger.reap()[1] == []
    assert crew.run() == [queued]
    assert crew.run() == []


def test_positions_are_what_turns_make_of_them(crew: Crew) -> None:
    many = [crew.generation("a") for _ in range(50)]
    one = crew.generation("b")
    places = {
        ref: found.position for ref, found in zip([*many, one], crew.ledger.read([*many, one]), strict=True) if found
    }
    assert places[one] is not None
    assert places[one] <= 1
    assert [places[ref] for ref in many[1:]] == list(range(2, 51))
