"""Rate limits by GCRA, a leaky bucket in one number, which Redis reads and changes in one step.

hdb:{tenant}:rate:{policy}     when the bucket is empty again, in microseconds of Redis' clock; expires when it is

A bucket holds a whole window's requests, so that a burst is served at once, and leaks evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from core.queue.connection import CoalescedScript

_TAKE = """
-- for each call its key, limit, window in microseconds, and how much of the limit it takes
-- -> for each {taken (1 or 0), left, microseconds to wait, microseconds until it is empty}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function take(key, limit, window, count)
  local each, slack = window / limit, limit  -- each take may be rounded by a microsecond
  local empty = math.max(tonumber(redis.call('GET', key) or '0') or 0, now)
  local after = empty + each * count
  if after - now > window + slack then return { 0, 0, math.ceil(after - window - now), math.ceil(empty - now) } end
  redis.call('SET', key, string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
  return { 1, math.floor((window + slack - (after - now)) / each), 0, math.ceil(after - now) }
end
local answers = {}
for i = 1, #ARGV, 4 do
  answers[#answers + 1] = take(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]))
end
return answers
"""
_GIVE_BACK = """
-- for each call the same -> for each whether there was anything
local answers = {}
for i = 1, #ARGV, 4 do
  local empty = tonumber(redis.call('GET', ARGV[i]) or '0') or 0
  if empty > 0 then
    redis.call('SET', ARGV[i], string.format('%.0f', empty - ARGV[i + 2] / ARGV[i + 1] * ARGV[i + 3]), 'KEEPTTL')
  end
  answers[#answers + 1] = empty > 0 and 1 or 0
end
return answers
"""


@dataclass(frozen=True)
class Rate:
    """At most `limit` requests (or pictures) in `window` seconds, on average; the name is in the answers' headers."""

    name: str
    limit: int
    window: int


@dataclass(frozen=True)
class RateStatus:
    """Whether a request was granted, and how many more are left now; `wait` and `reset` are seconds, rounded up.

    `wait`: until one more is granted. `reset`: until the whole limit is.
    """

    rate: Rate
    granted: bool
    left: int
    wait: int
    reset: int


class RateLimits:
    """The buckets of all tenants. Raises BrokerUnavailable."""

    def __init__(self, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that answers or raises in time."""
        self._take = CoalescedScript(connect, _TAKE)
        self._give_back = CoalescedScript(connect, _GIVE_BACK)

    async def take(self, tenant: str, rate: Rate, count: float = 1) -> RateStatus:
        """Count a request, which takes `count` of the limit, if it is granted."""
        granted, left, wait, reset = await self._take(*_arguments(tenant, rate, count))
        return RateStatus(rate, bool(granted), left, math.ceil(wait / 1e6), math.ceil(reset / 1e6))

    async def give_back(self, tenant: str, rate: Rate, count: float = 1) -> None:
        """Uncount a request."""
        await self._give_back(*_arguments(tenant, rate, count))


def _arguments(tenant: str, rate: Rate, count: float) -> tuple[str, int, int, str]:
    return f"hdb:{tenant}:rate:{rate.name}", rate.limit, rate.window * 1_000_000, repr(count)
