"""Redis' side of the jobs: who is doing what. Every transition is one Lua script (lua/), so it is whole or not at all.

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
from typing import Any

from pydantic import TypeAdapter
from redis import Redis

from core.errors import BrokerUnavailable, HyperDreamBoothError, InternalFault
from core.queue.connection import redis_errors
from core.records import Failure, Job, JobKind, JobState, Preview, Result

_RESULT: TypeAdapter[Any] = TypeAdapter(Result)
_SCRIPTS = ("accept", "beat", "cancel", "claim", "erase", "finish", "give_back", "look", "preview", "reap")
_QUEUES = {name: f"hdb:queued:{name}" for name in ("personalize", "generate", "batch")}
"""One for each kind of job, and one for the items of batches, which wait until nothing else does."""
_TIMES = ("created_at", "started_at", "finished_at")


@dataclass(frozen=True)
class Claim:
    """The right to run a job: its number `fence` is asked for at every write, and only the latest one counts."""

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


@dataclass(frozen=True)
class Progress:
    """Step `step` of `total` in `stage`; an empty stage means that there is nothing to say."""

    stage: str = ""
    step: int = 0
    total: int = 0


class Hold(StrEnum):
    """What a worker learns when it renews its lease."""

    HELD = "held"
    """Go on."""
    CANCEL = "cancel"
    """The lease holds, but somebody asked for the job to stop."""
    LOST = "lost"
    """Somebody else has the job, or it is over."""
    GONE = "gone"
    """The job was erased with its subject."""


@dataclass(frozen=True)
class Limits:
    """The ledger's numbers; times in seconds."""

    lease: float = 15.0
    notify_again: float = 60.0
    max_attempts: int = 3
    queue_limit: int = 500
    ttl: int = 24 * 3600


class Ledger:
    """The records of all jobs that are not over, and of those that ended lately. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis, limits: Limits) -> None:
        """`redis` decodes its answers to str."""
        self.redis = redis
        self.limits = limits
        self._scripts = {name: redis.register_script(script(name)) for name in _SCRIPTS}

    def accept(self, job: Job, *, batch_group: str = "", rows: int = 1, bounded: bool = True) -> str:
        """Queue a new job: "accepted", "known" (it is there already) or, when `bounded`, "full"."""
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
            "batch_group": batch_group,
            "rows": rows,
        }
        limit = self.limits.queue_limit if bounded else 0
        flat = [value for pair in fields.items() for value in pair]
        return str(self._run("accept", job.ref, limit, _milliseconds(self.limits.notify_again), *flat))

    def get(self, ref: str) -> Job | None:
        """The job's record, or None when Redis does not know it."""
        with redis_errors():
            fields: Any = self.redis.hgetall(_record(ref))
        return read_job(fields) if "state" in fields else None

    def look(self, refs: Sequence[str]) -> list[tuple[Job, int | None] | None]:
        """The record of each job and its position, in one round trip; None for one that Redis does not know."""
        return [read_standing(answer) for answer in self._run("look", *refs)]

    def position(self, job: Job) -> int | None:
        """How many jobs are before this one in its queue; None when it is not queued."""
        queue = _QUEUES["batch" if job.batch_id else job.kind.value]
        with redis_errors():
            rank: Any = self.redis.zrank(queue, job.ref)
        return None if rank is None else int(rank)

    def queued(self, kind: JobKind) -> int:
        """How many jobs of this kind wait, without those of batches."""
        with redis_errors():
            count: Any = self.redis.zcard(_QUEUES[kind.value])
        return int(count)

    def queued_items(self) -> Counter[str]:
        """How many items of batches wait, by tenant."""
        with redis_errors():
            refs: Any = self.redis.zrange(_QUEUES["batch"], 0, -1)
        return Counter(ref.partition("/")[0] for ref in refs)

    def running(self) -> int:
        """How many jobs are running."""
        with redis_errors():
            count: Any = self.redis.zcard("hdb:running")
        return int(count)

    def live(self, tenant: str) -> dict[str, int]:
        """How many of a tenant's jobs wait, by queue, and how many are running (under "running")."""
        names = _QUEUES | {"running": "hdb:running"}
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for name in names.values():
                pipeline.zrange(name, 0, -1)
            found = pipeline.execute()
        return {
            name: sum(ref.startswith(f"{tenant}/") for ref in refs) for name, refs in zip(names, found, strict=True)
        }

    def claim(self, kind: JobKind, ref: str, *, max_jobs: int = 1, max_rows: int = 1) -> list[Claim]:
        """Take the job that the bell was rung for (or the oldest), and others that fit into its batch; may be empty.

        Items of batches are taken when nothing else waits, whoever the bell was rung for.
        """
        lease = _milliseconds(self.limits.lease)
        flat: Any = self._run("claim", kind.value, ref, lease, max_jobs, max_rows)
        triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return [Claim(name, int(attempt), int(fence)) for name, attempt, fence in triples]

    def beat(self, claim: Claim, progress: Progress, *, event: str = "") -> Hold:
        """Renew the lease and note the progress; an `event` is told to those who follow the job."""
        lease = _milliseconds(self.limits.lease)
        return Hold(
            self._run("beat", claim.ref, claim.fence, lease, progress.stage, progress.step, progress.total, event)
        )

    def preview(self, claim: Claim, preview: Preview) -> Hold:
        """Note what can be used before the job is over, tell those who follow it, and renew the lease.

        It is forgotten when the attempt comes to nothing: the next one makes its own.
        """
        lease = _milliseconds(self.limits.lease)
        return Hold(self._run("preview", claim.ref, claim.fence, lease, preview.model_dump_json()))

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

        A job that somebody asked to cancel ends canceled, whatever `state` says.
        """
        answer = self._run(
            "finish",
            claim.ref,
            claim.fence,
            state.value,
            result.model_dump_json() if result else "",
            error.code if error else "",
            error.detail if error else "",
            json.dumps(seconds or {}),
        )
        return _state(answer)

    def give_back(
        self, claim: Claim, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0
    ) -> JobState | None:
        """Put the job back into its queue, not to be claimed before `delay` seconds. None when the claim is not good.

        When the attempt was used up (`counted`) and was the last one, the job fails with `error`.
        """
        error = error or InternalFault()
        limits = self.limits
        answer = self._run(
            "give_back",
            claim.ref,
            claim.fence,
            int(counted),
            _milliseconds(delay),
            _milliseconds(limits.notify_again),
            limits.max_attempts,
            error.code,
            error.detail,
        )
        return _state(answer)

    def cancel(self, ref: str) -> str:
        """Ask a job to stop: "canceled" (it was queued), "asked" (it is running), "over" or "unknown"."""
        return str(self._run("cancel", ref))

    def reap(self) -> tuple[list[str], list[str]]:
        """Take back expired leases: refs whose bell must be rung (now, or again), and refs that are over."""
        limits = self.limits
        rings, over = self._run("reap", limits.max_attempts, _milliseconds(limits.notify_again), 100)
        return list(rings), list(over)

    def erase(self, refs: list[str]) -> None:
        """Forget the jobs, also when they are running: no claim on them is good any more."""
        if refs:
            self._run("erase", *refs)

    def expire(self, ref: str) -> None:
        """Let the record of a job that is over, and is written to the store, disappear in time."""
        with redis_errors():
            self.redis.expire(_record(ref), self.limits.ttl)

    def turn(self, name: str, seconds: float) -> bool:
        """Whether it is this caller's turn to do `name`: one caller in so many seconds hears yes.

        Also true at once when Redis came back empty, since it has forgotten whose turn it was.
        """
        with redis_errors():
            return bool(self.redis.set(f"hdb:turn:{name}", "1", px=_milliseconds(seconds), nx=True))

    def end_turn(self, name: str) -> None:
        """Let others have their turn."""
        with redis_errors():
            self.redis.delete(f"hdb:turn:{name}")

    def ping(self) -> None:
        """Raises BrokerUnavailable when Redis does not answer."""
        with redis_errors():
            self.redis.ping()

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


def read_standing(answer: list[Any]) -> tuple[Job, int | None] | None:
    """What `look` answers for a job: its record and its position, or None when Redis does not know it."""
    flat, rank = answer
    fields = dict(zip(flat[0::2], flat[1::2], strict=True))
    return (read_job(fields), rank) if "state" in fields else None


def read_job(fields: dict[str, str]) -> Job:
    """A job from the fields of its hash."""
    values: dict[str, Any] = {key: value for key, value in fields.items() if value != ""}
    values.update({key: int(values[key]) / 1000 for key in _TIMES if key in values})
    values["blended_with"] = tuple(fields.get("blended_with", "").split())
    values["cancel_requested"] = fields.get("cancel") == "1"
    values["seconds"] = json.loads(fields.get("seconds") or "{}")
    values["result"] = _RESULT.validate_json(fields["result"]) if fields.get("result") else None
    values["preview"] = Preview.model_validate_json(fields["preview"]) if fields.get("preview") else None
    if fields.get("error_code"):
        values["error"] = Failure(code=fields["error_code"], detail=fields.get("error_detail", ""))
    return Job.model_validate(values)


def _record(ref: str) -> str:
    tenant, _, job_id = ref.partition("/")
    return f"hdb:{tenant}:job:{job_id}"


def _state(answer: Any) -> JobState | None:
    return None if answer in ("lost", "gone") else JobState(answer)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
