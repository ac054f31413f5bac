"""The usage of each tenant by day (UTC). It outlives subjects and jobs, so it names neither.

Each ended job is an empty object, with the figures in its name: a day is read by listing it.

usage/{day}/{tenant}/{hash of the job's id}.{kind}.{state}.{pictures}.{milliseconds}

The same job ends only once in the store (archive.put_outcome), so recording it again writes the same name.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from core.records import GenerateResult, Job, JobKind, JobState
from core.storage import Store, keys

KEPT_DAYS = 400


@dataclass(frozen=True)
class Ended:
    """An ended job: how many pictures it made, and how many seconds a worker was busy with it."""

    day: date
    kind: JobKind
    state: JobState
    pictures: int
    seconds: float


def note(store: Store, job: Job) -> None:
    """Record an ended job. Raises StoreUnavailable."""
    ended_at = job.created_at if job.finished_at is None else job.finished_at
    day = datetime.fromtimestamp(ended_at, UTC).date().isoformat()
    name = hashlib.sha256(job.id.encode()).hexdigest()[:24]
    pictures = len(job.result.images) if isinstance(job.result, GenerateResult) else 0
    facts = (name, job.kind, job.state, pictures, round(_seconds(job) * 1000))
    store.put(keys.usage(day, job.tenant) + ".".join(map(str, facts)), b"")


def ended(store: Store, tenant: str, *, days: int) -> list[Ended]:
    """The tenant's jobs that ended today or in the days before, `days` in all. Raises StoreUnavailable."""
    today = datetime.now(UTC).date()
    found = []
    for back in reversed(range(days)):
        day = today - timedelta(days=back)
        prefix = keys.usage(day.isoformat(), tenant)
        for key in store.list(prefix):
            _, kind, state, pictures, milliseconds = key.removeprefix(prefix).split(".")
            found.append(Ended(day, JobKind(kind), JobState(state), int(pictures), int(milliseconds) / 1000))
    return found


def drop_old(store: Store) -> None:
    """Delete the usage of more than KEPT_DAYS ago. Reads names only."""
    oldest = datetime.fromtimestamp(time.time() - KEPT_DAYS * 24 * 3600, UTC).date().isoformat()
    for key in store.list(keys.USAGE):
        if key.removeprefix(keys.USAGE).partition("/")[0] >= oldest:
            return
        store.delete(key)


def _seconds(job: Job) -> float:
    """Seconds of work as the worker measured them, or, when the job failed, the duration of its last attempt."""
    if "total" in job.seconds:
        return job.seconds["total"]
    if job.seconds:
        return sum(job.seconds.values())
    return max(0.0, job.finished_at - job.started_at) if job.started_at and job.finished_at else 0.0
