"""Jobs in Redis: records, queues and leases. Every transition is one Lua script (lua/): it is whole or not at all.

The scripts reach keys that are not in their KEYS (a record's key is made from its ref), so this wants one Redis, not a
Redis Cluster; Celery wants that as well.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final, Literal

from redis import Redis

from core.errors import BrokerUnavailable, HyperDreamBoothError, InternalFault, OutOfMemory
from core.ids import is_ref, is_test
from core.jobs.demand import ANY_JOB, DEFAULT_DEMAND, Demand, Offer
from core.jobs.redis_records import QueuedJob, read_queued
from core.queue.connection import redis_errors
from core.queue.notifications import ENOUGH_NOTIFICATIONS, NOTIFICATIONS
from core.records import Failure, Job, JobKind, JobState, Preview, Result

_SCRIPTS = (
    "accept",
    "beat",
    "cancel",
    "claim",
    "erase",
    "expire",
    "expire_record",
    "finish",
    "give_back",
    "preview",
    "read",
    "reap",
)
SETBACKS, OUT_OF_MEMORY_SETBACKS = 100, 10
"""How often a job is given back uncounted, after a delay, before it fails: an hour and a half, six minutes."""
TESTS: Final = "test"
"""The queue of all jobs of test keys."""
EVENTS_SECONDS = 600
"""How long the events of a job are kept when it is over."""
_QUEUES = {name: f"hdb:queued:{name}" for name in ("personalize", "generate", "batch", TESTS)}
"""One for each kind of job, one for the items of batches, and that of tests."""


@dataclass(frozen=True)
class Claim:
    """The right to run a job: its number `fence` is checked at every write, and only the latest one counts."""

    ref: str
    attempt: int
    fence: int

    @property
    def tenant(self) -> str:
        """Whose job it is."""
        return self.ref.partition("/")[0]

    @property
    def job_id(self) -> str:
        """Which job it is."""
        return self.ref.partition("/")[2]


class Taken(list[Claim]):
    """What a worker has taken; `more` when others wait, and another worker should be notified."""

    def __init__(self, claims: Sequence[Claim] = (), *, more: bool = False) -> None:
        super().__init__(claims)
        self.more = more


@dataclass(frozen=True)
class Progress:
    """Step `step` of `total` in `stage`; an empty stage means no progress to report.

    `share` of the whole job is done, 0 to 1, and the rest takes `seconds_left`, where that is known.
    """

    stage: str = ""
    step: int = 0
    total: int = 0
    share: float = 0.0
    seconds_left: float | None = None


class LeaseState(StrEnum):
    """What a worker learns when it renews its lease."""

    HELD = "held"
    """Go on."""
    CANCEL = "cancel"
    """The lease holds, but the job is to stop."""
    LOST = "lost"
    """Another worker has the job, or it is over."""
    GONE = "gone"
    """The job was erased with its subject."""


@dataclass(frozen=True)
class Limits:
    """The ledger's numbers; times in seconds.

    `queue_limit` jobs of each tenant may wait in a queue, and `queue_total` of all of them.
    """

    lease: float = 15.0
    notify_again: float = 5.0
    max_attempts: int = 3
    queue_limit: int = 500
    queue_total: int = 10_000
    ttl: int = 24 * 3600


class Ledger:
    """The records of all jobs that are not over, and of those that ended lately. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis, limits: Limits) -> None:
        """`redis` decodes its answers to str."""
        self.redis = redis
        self.limits = limits
        self._scripts = {name: redis.register_script(script(name)) for name in _SCRIPTS}

    def accept(self, job: Job, demand: Demand = DEFAULT_DEMAND, *, bounded: bool = True) -> str:
        """Queue a new job: "accepted", "silent" (no worker need be notified), "known" (it is there already).

        Or, when `bounded`, "full" and "share": this tenant has as many in the queue as it may.
        """
        fields = {
            "id": job.id,
            "tenant": job.tenant,
            "kind": job.kind.value,
            "subject_id": job.subject_id,
            "blended_with": " ".join(job.blended_with),
            "batch_id": job.batch_id,
            # Not rounded up: a job that is ahead of the queue's clock would change places with its neighbours.
            "created_at": math.floor(job.created_at * 1000),
            "request_id": job.request_id,
            "batch_group": demand.group,
            "rows": demand.rows,
            "work": f"{demand.work:.3f}",
            "needs": demand.needs,
            "class": "refine" if demand.refines and not job.batch_id else "",
        }
        most = (self.limits.queue_total, self.limits.queue_limit) if bounded else (0, 0)
        flat = [value for pair in fields.items() for value in pair]
        return str(self._run("accept", job.ref, *most, NOTIFICATIONS, ENOUGH_NOTIFICATIONS, *flat))

    def get(self, ref: str) -> Job | None:
        """The job's record, or None when Redis does not know it."""
        (found,) = self.read([ref])
        return found.job if found else None

    def read(self, refs: Sequence[str]) -> list[QueuedJob | None]:
        """The record of each job and its position, in one round trip; None for one that Redis does not know."""
        return [read_queued(ref, answer) for ref, answer in zip(refs, self._run("read", *refs), strict=True)]

    def position(self, job: Job) -> int | None:
        """How many jobs are before this one, as turns are now; None when it is not queued."""
        (found,) = self.read([job.ref])
        return found and found.position

    def queued(self, kind: JobKind | Literal["test"]) -> int:
        """How many jobs of this kind wait, without those of batches; or how many jobs of test keys."""
        with redis_errors():
            count: Any = self.redis.zcard(_QUEUES[kind])
        return int(count)

    def waiting(self, tenant: str, kind: JobKind) -> int:
        """How many of the tenant's jobs of this kind wait, without those of batches."""
        with redis_errors():
            count: Any = self.redis.scard(f"hdb:{tenant}:waiting:{TESTS if is_test(tenant) else kind.value}")
        return int(count)

    def queued_items(self) -> Counter[str]:
        """How many items of batches wait, by tenant; of a test key's, all that waits."""
        with redis_errors():
            refs: Any = [ref for name in ("batch", TESTS) for ref in self.redis.zrange(_QUEUES[name], 0, -1)]
        return Counter(ref.partition("/")[0] for ref in refs)

    def running(self) -> int:
        """How many jobs are running."""
        with redis_errors():
            count: Any = self.redis.zcard("hdb:running")
        return int(count)

    def live(self, tenant: str) -> dict[str, int]:
        """How many of a tenant's jobs wait, by queue, and how many are running (under "running")."""
        names = [name for name in _QUEUES if name != TESTS or is_test(tenant)]
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for name in names:
                pipeline.scard(f"hdb:{tenant}:waiting:{name}")
            pipeline.zrange("hdb:running", 0, -1)
            *counts, running = pipeline.execute()
        live = dict(zip(names, counts, strict=True))
        return live | {"running": sum(ref.startswith(f"{tenant}/") for ref in running)}

    def claim(
        self,
        kind: JobKind | Literal["test"] | None = None,
        ref: str = "",
        *,
        offer: Offer = ANY_JOB,
        max_jobs: int = 1,
        max_rows: int = 1,
    ) -> Taken:
        """Take the job whose turn it is, and others that fit into its batch; may be empty.

        Of this `kind` only, when it is given; the job `ref`, when that one can be had. Jobs of test keys are taken by
        those only who ask for them.
        """
        limits = (_milliseconds(self.limits.lease), max_jobs, max_rows)
        able = (offer.format, "*" if offer.model is None else offer.model, NOTIFICATIONS)
        more, *flat = self._run("claim", str(kind or ""), ref, *limits, *able)
        triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        taken = [Claim(name, int(attempt), int(fence)) for name, attempt, fence in triples if is_ref(name, "job")]
        return Taken(taken, more=bool(more))

    def beat(self, claim: Claim, progress: Progress, *, event: str = "") -> LeaseState:
        """Renew the lease and note the progress; an `event` goes to those who follow the job."""
        lease = _milliseconds(self.limits.lease)
        left = "" if progress.seconds_left is None else f"{progress.seconds_left:.1f}"
        at = (progress.stage, progress.step, progress.total, f"{progress.share:.4f}", left)
        return LeaseState(self._run("beat", claim.ref, claim.fence, lease, *at, event))

    def preview(self, claim: Claim, preview: Preview) -> LeaseState:
        """Note what can be used before the job is over, for those who follow it as well, and renew the lease.

        It is forgotten when the attempt comes to nothing: the next one makes its own.
        """
        lease = _milliseconds(self.limits.lease)
        return LeaseState(self._run("preview", claim.ref, claim.fence, lease, preview.model_dump_json()))

    def finish(
        self,
        claim: Claim,
        state: JobState,
        *,
        result: Result | None = None,
        error: Failure | None = None,
        seconds: dict[str, float] | None = None,
    ) -> JobState | None:
        """End the job and move its result pointer, in one step. None when the claim is no longer good.

        A job that was asked to stop ends canceled, whatever `state` says.
        """
        answer = self._run(
            "finish",
            claim.ref,
            claim.fence,
            state.value,
            result.model_dump_json(exclude={"options"}) if result else "",  # prompts are in the store only
            error.code if error else "",
            error.detail if error else "",
            json.dumps(seconds or {}),
        )
        return _state(answer)

    def give_back(
        self, claim: Claim, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0
    ) -> JobState | None:
        """Put the job back into its queue, not to be claimed before `delay` seconds. None when the claim is not good.

        When the attempt was used up (`counted`) and was the last one, the job fails with `error`. What is not counted,
        and has a `delay`, waits twice as long each time, up to a minute; and fails after `most_setbacks` of an error.
        """
        error = error or InternalFault()
        limits = self.limits
        answer = self._run(
            "give_back",
            claim.ref,
            claim.fence,
            int(counted),
            _milliseconds(delay),
            limits.max_attempts,
            OUT_OF_MEMORY_SETBACKS if isinstance(error, OutOfMemory) else SETBACKS,
            error.code,
            error.detail,
        )
        return _state(answer)

    def cancel(self, ref: str) -> str:
        """Ask a job to stop: "canceled" (it was queued), "asked" (it is running), "over" or "unknown"."""
        return str(self._run("cancel", ref))

    def reap(self) -> tuple[list[str], list[str]]:
        """Take back expired leases. Returns the refs to notify workers of (again), and those that are over."""
        limits = self.limits
        again, lease = _milliseconds(limits.notify_again), _milliseconds(limits.lease)
        waiting, over = self._run("reap", limits.max_attempts, NOTIFICATIONS, again, 100, lease)
        return [ref for ref in waiting if is_ref(ref, "job")], [ref for ref in over if is_ref(ref, "job")]

    def expire_claims(self, claims: Sequence[Claim]) -> None:
        """End the leases of these claims, those that are still good: the next `reap` takes the jobs back."""
        if claims:
            self._run("expire", *[part for claim in claims for part in (claim.ref, claim.fence)])

    def erase(self, refs: list[str]) -> None:
        """Forget the jobs, also when they are running: no claim on them is good any more."""
        if refs:
            self._run("erase", *refs)

    def drop_unreadable(self, ref: str) -> None:
        """Forget a record that cannot be read, so that the job can be queued again from the store."""
        with redis_errors():
            there = self.redis.exists(_record(ref))
        if there and self.get(ref) is None:
            self.erase([ref])

    def expire(self, ref: str) -> None:
        """A job is over, and is written to the store: its record and events disappear in time, small until then."""
        self._run("expire_record", ref, self.limits.ttl, EVENTS_SECONDS)

    def ping(self) -> None:
        """Raises BrokerUnavailable when Redis does not answer, or takes no writes (a replica, one without memory)."""
        with redis_errors():
            self.redis.set("hdb:turn:ping", "1", px=1000)

    def _run(self, name: str, *arguments: str | int) -> Any:
        with redis_errors():
            answer = self._scripts[name](args=list(arguments))
        if answer is None:
            raise BrokerUnavailable(f"Redis gave no answer to {name}")
        return answer


def script(name: str) -> str:
    """The source of one of the scripts, with what all of them share."""
    lua = files("core.jobs") / "lua"
    return (lua / "common.lua").read_text() + (lua / f"{name}.lua").read_text()


def _record(ref: str) -> str:
    tenant, _, job_id = ref.partition("/")
    return f"hdb:{tenant}:job:{job_id}"


def _state(answer: Any) -> JobState | None:
    return None if answer in ("lost", "gone") else JobState(answer)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
