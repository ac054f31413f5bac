"""What outlives a process (the store, Redis, the clock, the receivers of webhooks), and what others then see of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, cast

from redis import Redis

from core.errors import HyperDreamBoothError
from core.jobs.claims import Assignment
from core.jobs.ledger import Ledger
from core.jobs.pages import JobFilter
from core.records import GenerateRequest, GenerateResult, Image, Job, JobKind, JobState, SubjectStatus
from core.storage import Store
from core.storage.encryption import KEY_BYTES, Cipher
from core.storage.keys import image_id
from core.testing import MemoryStore
from core.webhooks.dispatcher import Dispatcher
from core.webhooks.records import Attempt
from core.webhooks.schedule import Due, Schedule
from core.webhooks.sender import Sender
from tests.faults.process import Clock, Fault, Process, ProcessNotifier, ProcessRedis, ProcessStore
from tests.harness import LIMITS, ServiceHarness

CIPHER = Cipher(lambda: bytes(KEY_BYTES))
FIGURES = ("hdb:counts", "hdb:done", "hdb:turns")
"""Of the service as a whole: they stay."""
FEW = replace(LIMITS, queue_limit=4)

TENANT = "local"
DAY = 24 * 3600.0


@dataclass
class World:
    """Starts processes, lets time pass, and sees what is there."""

    url: str
    clock: Clock
    store: Store = field(default_factory=MemoryStore)
    received: set[tuple[str, str]] = field(default_factory=set)
    """(type of event, id of the job, subject or batch) of all messages that webhooks got."""

    def __post_init__(self) -> None:
        self.redis = Redis.from_url(self.url, decode_responses=True)
        self.sender = cast("Sender", _Receiver(self.received))

    def start(self, fault: Fault = Fault.DIES, at: int | None = None) -> tuple[Process, ServiceHarness]:
        """A new process with nothing in its memory, and the services in it."""
        process = Process(self.redis, fault, at)
        redis = ProcessRedis(connection_pool=self.redis.connection_pool)
        redis.process = process
        store = cast("MemoryStore", ProcessStore(self.store, process))
        notifier: Any = ProcessNotifier(process)
        return process, ServiceHarness(Ledger(redis, FEW), store, notifier, cipher=CIPHER)

    def pass_time(self, seconds: float) -> None:
        """Put the clocks forward, that of Redis as well: what expires is gone, what was due later is due."""
        self.clock.ahead += seconds
        for key in self.redis.scan_iter("hdb:*"):
            left = self.redis.pttl(key)
            if 0 <= left <= seconds * 1000:
                self.redis.delete(key)
            elif self.redis.type(key) == "zset":
                later = {name: score - seconds * 1000 for name, score in self.redis.zrange(key, 0, -1, withscores=True)}
                self.redis.zadd(key, later, xx=True)

    def recover(self) -> ServiceHarness:
        """Other processes go on: the maintenance, a worker and the dispatcher, for some hours."""
        _, harness = self.start()
        for seconds in (20.0, 3.0, 400.0, 3.0, 3 * 3600.0, 3.0):
            self.pass_time(seconds)
            harness.maintenance.tick()
            do_all_jobs(harness)
            self.deliver(harness)
        return harness

    def deliver(self, harness: ServiceHarness) -> None:
        """Send all messages to webhooks that are due."""
        schedule = Schedule(harness.ledger.redis)
        dispatcher = Dispatcher(harness.services.webhooks, schedule, self.sender)
        dispatcher.reconcile()

        async def send(due: list[Due]) -> None:
            for each in due:
                await dispatcher.deliver(each)

        while due := schedule.take(10):
            asyncio.run(send(due))


class _Receiver:
    """Gets every message, and answers 200."""

    def __init__(self, received: set[tuple[str, str]]) -> None:
        self._received = received

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Attempt:
        message = json.loads(body)
        data = message["data"]
        kind = message["type"].partition(".")[0]
        self._received.add((message["type"], data.get(f"{kind}_id", "")))
        return Attempt(at=0.0, seconds=0.0, status=200)


def do_all_jobs(harness: ServiceHarness) -> None:
    """Do what waits, as a worker does."""
    for kind in JobKind:
        while found := harness.claims.claim(kind, "", max_jobs=1, max_rows=100):
            for assignment in found:
                finish(harness, assignment)


def finish(harness: ServiceHarness, assignment: Assignment) -> None:
    """Do a job that was claimed, and commit its result."""
    if assignment.job.kind is JobKind.PERSONALIZE:
        harness.claims.commit(assignment, harness.weights_of(assignment), {"finetune": 1.0})
        return
    request, job = assignment.request, assignment.job
    assert isinstance(request, GenerateRequest)
    harness.subjects.pinned_weights(job.tenant, request.subject_id, request.weights_key, request.stage)
    harness.claims.store(assignment, "0.png", b"picture of a face", content_type="image/png")
    image = Image(id=image_id(job.id, 0), seed=0, width=8, height=8)
    harness.claims.commit(assignment, GenerateResult(images=(image,)), {"generate": 1.0})


def jobs_of(harness: ServiceHarness) -> list[Job]:
    """All jobs that a caller sees."""
    return [each.job for each in harness.jobs.page(TENANT, JobFilter(), limit=1000).jobs]


def violations(world: World, harness: ServiceHarness) -> list[str]:
    """What is wrong with the world once all that was begun must be over."""
    found = [*_in_redis(world), *_in_store(world), *_of_subjects(world, harness), *_of_batches(harness)]
    jobs = jobs_of(harness)
    found += [f"{job.id} is {job.state}" for job in jobs if not job.state.is_final]
    for job in jobs:
        if job.state is JobState.SUCCEEDED and isinstance(job.result, GenerateResult):
            found += (
                []
                if _can(lambda job=job: harness.jobs.image(TENANT, job.result.images[0].id))
                else [f"{job.id}: no picture"]
            )
    if list(harness.services.webhooks.all(TENANT)):
        found += [f"no message of {job.id}" for job in jobs if (f"job.{job.state}", job.id) not in world.received]
    return found


def _in_redis(world: World) -> list[str]:
    names = {name for name in world.redis.scan_iter("hdb:*") if not name.startswith(FIGURES)}
    return [f"{key} stays in Redis" for key in names if world.redis.ttl(key) == -1]


def _in_store(world: World) -> list[str]:
    names = list(world.store.list(""))
    left = ("pending/", "erasing/", "batches/open/", "batches/deleted/", "batches/late/", "undelivered/")
    found = [f"{name} is left" for name in names if name.startswith(left) or name.endswith(".open")]
    with_outcome = {name.rpartition("/")[0] for name in names if name.endswith("/outcome.json")}
    found += [
        f"{name} is of no job"
        for name in names
        if "/jobs/" in name and "/".join(name.split("/")[:3]) not in with_outcome
    ]
    jobs = {name.rpartition("/")[2] for name in with_outcome}
    found += [
        f"{name} is of no job" for name in names if "/subject-jobs/" in name and name.rpartition("/")[2] not in jobs
    ]
    listed = Counter("".join(name.split("/")[2:]).partition(".")[0] for name in names if "/job-list/" in name)
    return found + [f"{name} is on the list {count} times" for name, count in listed.items() if count > 1]


def _of_subjects(world: World, harness: ServiceHarness) -> list[str]:
    found = []
    personalized = Counter(
        job.subject_id
        for job in jobs_of(harness)
        if job.kind is JobKind.PERSONALIZE and job.state is JobState.SUCCEEDED
    )
    for subject in harness.subjects.page(TENANT, limit=1000):
        consents = len(subject.consents) + (subject.consent is not None)
        if subject.is_busy:
            found.append(f"{subject.id} is busy")
        if subject.status is SubjectStatus.READY and not _can(lambda s=subject: harness.subjects.weights(TENANT, s.id)):
            found.append(f"{subject.id} has no weights")
        if personalized[subject.id] > consents or subject.photos_sent > consents:
            found.append(f"{subject.id}: photos without consent")
        kept = set(world.store.list(f"{TENANT}/subjects/{subject.id}/photos/"))
        if kept != set(subject.photos):
            found.append(f"{subject.id}: photos {sorted(kept)} are there, {subject.photos} are known")
    known = {f"{TENANT}/subjects/{subject.id}/" for subject in harness.subjects.page(TENANT, limit=1000)}
    found += [
        f"{key} is of no subject" for key in world.store.list(f"{TENANT}/subjects/") if not key.startswith(tuple(known))
    ]
    return found


def _of_batches(harness: ServiceHarness) -> list[str]:
    found = []
    for state in harness.batches.page(TENANT, limit=100)[0]:
        if not state.is_over:
            found.append(f"{state.batch.id} is not over")
        jobs = [each.job.id for each in harness.batches.items(state, range(state.batch.total)) if each.job]
        if len(set(jobs)) != len(jobs):
            found.append(f"{state.batch.id}: items share jobs")
    return found


def _can(read: Any) -> bool:
    try:
        read()
    except HyperDreamBoothError:
        return False
    return True


def left_after_all_is_deleted(world: World, harness: ServiceHarness) -> list[str]:
    """What stays when everything is deleted, and some days have gone by; figures of usage may."""
    for state in harness.batches.page(TENANT, limit=100)[0]:
        harness.batches.delete(TENANT, state.batch.id)
    for subject in harness.subjects.page(TENANT, limit=1000):
        harness.subjects.delete(TENANT, subject.id)
    for webhook in list(harness.services.webhooks.all(TENANT)):
        harness.services.webhooks.delete(TENANT, webhook.id)
    for pack in harness.services.packs.all(TENANT):
        harness.services.packs.delete(TENANT, pack.id)
    world.recover()
    world.pass_time(4 * DAY)
    harness = world.start()[1]
    harness.maintenance.tick()
    found = [f"{key} outlives all" for key in world.store.list("") if not key.startswith(("usage/", "bundles/"))]
    found += [f"{subject.id} is back" for subject in harness.subjects.page(TENANT)]
    return found + _in_redis(world)
