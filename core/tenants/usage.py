"""The usage of each tenant by day (UTC). It outlives subjects and jobs, so it names neither.

Each ended job is an empty object, with the figures in its name:

usage/{day}/{tenant}/{hash of the job's id}.{kind}.{state}.{pictures}.{milliseconds}

The same job ends only once in the store (archive.put_outcome), so recording it again writes the same name. Redis sums
up the names as they come, each once; a day that it does not know as a whole is read from the store once:

hdb:{tenant}:usage:{day}          hash: {kind}.{state} -> jobs, pictures, milliseconds; `whole` when nothing is missing
hdb:{tenant}:usage-names:{day}    set: the names that were summed up, for as long as jobs of that day may still end
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from core.errors import BrokerUnavailable
from core.queue.connection import redis_errors
from core.records import GenerateResult, Job, JobKind, JobState
from core.storage import Store, keys

KEPT_DAYS = 400
_OPEN_DAYS = 3
"""After so many days a day's names are forgotten; should a job of it end later, it is read from the store again."""

_ADD = """
-- sums, names, seconds to keep each, whole (1: these are all of the day), names
local sums, names = KEYS[1], KEYS[2]
local function add(name)
  local kind, state, pictures, milliseconds = string.match(name, '^[^.]+%.([^.]+)%.([^.]+)%.(%d+)%.(%d+)$')
  if not kind then return end
  redis.call('HINCRBY', sums, kind .. '.' .. state, 1)
  redis.call('HINCRBY', sums, 'pictures', pictures)
  redis.call('HINCRBY', sums, 'milliseconds', milliseconds)
end
for i = 4, #ARGV do
  if redis.call('SADD', names, ARGV[i]) == 1 and ARGV[3] ~= '1' then add(ARGV[i]) end
end
if ARGV[3] == '1' then
  redis.call('DEL', sums)
  for _, name in ipairs(redis.call('SMEMBERS', names)) do add(name) end
  redis.call('HSET', sums, 'whole', 1)
end
redis.call('EXPIRE', sums, ARGV[1])
redis.call('EXPIRE', names, ARGV[2])
return redis.call('HGETALL', sums)
"""


@dataclass(frozen=True)
class Ended:
    """An ended job: how many pictures it made, and how many seconds a worker was busy with it."""

    day: date
    kind: JobKind
    state: JobState
    pictures: int
    seconds: float


@dataclass
class DaySum:
    """What ended on a day: jobs by kind and state, their pictures, and the seconds that workers were busy with them."""

    day: date
    jobs: Counter[tuple[JobKind, JobState]] = field(default_factory=Counter)
    pictures: int = 0
    seconds: float = 0.0


class Usage:
    """The usage of all tenants. Raises StoreUnavailable."""

    def __init__(self, store: Store, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self._store = store
        self._redis = redis
        self._add = redis.register_script(_ADD)
        self._reading = threading.Lock()

    def note(self, job: Job) -> None:
        """Record an ended job, and count it. Raises BrokerUnavailable: it is to be recorded again."""
        day, name = note(self._store, job)
        with redis_errors():
            try:
                if datetime.now(UTC).date() - day < timedelta(days=_OPEN_DAYS):
                    self._add(keys=_redis_keys(job.tenant, day), args=[*_SECONDS_KEPT, 0, name])
                    return
            except ResponseError:  # what is there is no sum; the next one who asks reads the store
                pass
            self._redis.delete(*_redis_keys(job.tenant, day))

    def sums(self, tenant: str, *, days: int) -> list[DaySum]:
        """The days on which jobs of the tenant ended, oldest first, of the last `days`, today included."""
        today = datetime.now(UTC).date()
        asked = [today - timedelta(days=back) for back in reversed(range(days))]
        try:
            found = self._known(tenant, asked)
            if len(found) < len(asked):
                with self._reading:  # whoever waited here finds what another has read
                    found = self._known(tenant, asked)
                    for day in asked:
                        if day not in found:
                            found[day] = self._read(tenant, day)
        except BrokerUnavailable:
            with self._reading:
                found = {day: _sum_of(day, _names(self._store, tenant, day)) for day in asked}
        return [found[day] for day in asked if found[day].jobs]

    def _known(self, tenant: str, days: Sequence[date]) -> dict[date, DaySum]:
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for day in days:
                pipeline.hgetall(_redis_keys(tenant, day)[0])
            answers: list[dict[str, str]] = pipeline.execute()
        found = {}
        for day, answer in zip(days, answers, strict=True):
            try:
                if "whole" in answer:
                    found[day] = _read_sum(day, answer)
            except (ValueError, OverflowError):  # this is no sum: the store is read
                with redis_errors():
                    self._redis.delete(*_redis_keys(tenant, day))
        return found

    def _read(self, tenant: str, day: date) -> DaySum:
        names = _names(self._store, tenant, day)
        try:
            with redis_errors():
                flat: Any = self._add(keys=_redis_keys(tenant, day), args=[*_SECONDS_KEPT, 1, *names])
        except ResponseError:  # names that are none, and cannot be summed up
            return _sum_of(day, names)
        return _read_sum(day, dict(zip(flat[0::2], flat[1::2], strict=True)))


_SECONDS_KEPT = (KEPT_DAYS * 24 * 3600, _OPEN_DAYS * 24 * 3600)


def note(store: Store, job: Job) -> tuple[date, str]:
    """Record an ended job: its day, and the name that its record has. Raises StoreUnavailable."""
    ended_at = job.created_at if job.finished_at is None else job.finished_at
    day = datetime.fromtimestamp(ended_at, UTC).date()
    digest = hashlib.sha256(job.id.encode()).hexdigest()[:24]
    pictures = len(job.result.images) if isinstance(job.result, GenerateResult) else 0
    name = ".".join(map(str, (digest, job.kind, job.state, pictures, round(_seconds(job) * 1000))))
    store.put(keys.usage(day.isoformat(), job.tenant) + name, b"")
    return day, name


def ended(store: Store, tenant: str, *, days: int) -> list[Ended]:
    """The tenant's jobs that ended today or in the days before, `days` in all. Raises StoreUnavailable."""
    today = datetime.now(UTC).date()
    asked = [today - timedelta(days=back) for back in reversed(range(days))]
    return [_ended(day, name) for day in asked for name in _names(store, tenant, day)]


def drop_old(store: Store) -> None:
    """Delete the usage of more than KEPT_DAYS ago. Reads names only."""
    oldest = datetime.fromtimestamp(time.time() - KEPT_DAYS * 24 * 3600, UTC).date().isoformat()
    for key in store.list(keys.USAGE):
        if key.removeprefix(keys.USAGE).partition("/")[0] >= oldest:
            return
        store.delete(key)


def _names(store: Store, tenant: str, day: date) -> list[str]:
    prefix = keys.usage(day.isoformat(), tenant)
    return [key.removeprefix(prefix) for key in store.list(prefix)]


def _ended(day: date, name: str) -> Ended:
    _, kind, state, pictures, milliseconds = name.split(".")
    return Ended(day, JobKind(kind), JobState(state), int(pictures), int(milliseconds) / 1000)


def _sum_of(day: date, names: Iterable[str]) -> DaySum:
    found = DaySum(day)
    for each in (_ended(day, name) for name in names):
        found.jobs[each.kind, each.state] += 1
        found.pictures += each.pictures
        found.seconds += each.seconds
    return found


def _read_sum(day: date, fields: Mapping[str, str]) -> DaySum:
    counts = {(kind, state): _count(fields, f"{kind}.{state}") for kind in JobKind for state in JobState}
    jobs = Counter({key: count for key, count in counts.items() if count})
    return DaySum(day, jobs, _count(fields, "pictures"), _count(fields, "milliseconds") / 1000)


def _count(fields: Mapping[str, str], name: str) -> int:
    """A number of a sum. Raises ValueError for what is none."""
    count = int(fields.get(name, 0))
    if not 0 <= count < 2**63:
        raise ValueError("this is no count")
    return count


def _redis_keys(tenant: str, day: date) -> list[str]:
    return [f"hdb:{tenant}:usage:{day.isoformat()}", f"hdb:{tenant}:usage-names:{day.isoformat()}"]


def _seconds(job: Job) -> float:
    """Seconds of work as the worker measured them, or, when the job failed, the duration of its last attempt."""
    if "total" in job.seconds:
        return job.seconds["total"]
    if job.seconds:
        return sum(job.seconds.values())
    return max(0.0, job.finished_at - job.started_at) if job.started_at and job.finished_at else 0.0
