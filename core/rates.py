"""How much a tenant may ask for in a time: GCRA, a leaky bucket in one number, decided by Redis in one step.

hdb:{tenant}:rate:{policy}     when the bucket is empty again, in microseconds of Redis' clock; gone when it is

A bucket holds a whole window's worth, so that a burst is served at once, and leaks evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from redis import Redis

from core.broker import redis_errors

_TAKE = """
-- key; limit, window in microseconds -> {taken (1 or 0), left, microseconds to wait, microseconds until it is empty}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local each, slack = window / limit, limit  -- each take may be rounded by a microsecond
local empty = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') or 0, now)
local after = empty + each
if after - now > window + slack then return { 0, 0, math.ceil(after - window - now), math.ceil(empty - now) } end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return { 1, math.floor((window + slack - (after - now)) / each), 0, math.ceil(after - now) }
"""
_GIVE_BACK = """
-- key; limit, window in microseconds
local empty = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if empty == 0 then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', empty - ARGV[2] / ARGV[1]), 'KEEPTTL')
return 1
"""


@dataclass(frozen=True)
class Rate:
    """At most `limit` in any `window` seconds, on average; the name is public."""

    name: str
    limit: int
    window: int


@dataclass(frozen=True)
class Verdict:
    """Whether one was taken. `left` more can be taken now; `wait` and `reset` are seconds, rounded up.

    `wait`: until one can be taken. `reset`: until all of them can be.
    """

    rate: Rate
    taken: bool
    left: int
    wait: int
    reset: int


class Rates:
    """The buckets of all tenants. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)

    def take(self, tenant: str, rate: Rate) -> Verdict:
        """Take one, if there is one."""
        with redis_errors():
            answer: Any = self._take(keys=[_bucket(tenant, rate)], args=[rate.limit, rate.window * 1_000_000])
        taken, left, wait, reset = map(int, answer)
        return Verdict(rate, bool(taken), left, math.ceil(wait / 1e6), math.ceil(reset / 1e6))

    def give_back(self, tenant: str, rate: Rate) -> None:
        """One was taken in vain."""
        with redis_errors():
            self._give_back(keys=[_bucket(tenant, rate)], args=[rate.limit, rate.window * 1_000_000])


def _bucket(tenant: str, rate: Rate) -> str:
    return f"hdb:{tenant}:rate:{rate.name}"
