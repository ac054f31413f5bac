"""When each delivery is due, in Redis. Redis may come back empty: the store has a marker of each pending delivery.

hdb:deliveries                        webhooks ("tenant/id") by the time their next message is due
hdb:{tenant}:deliveries:{webhook}     its messages by the time they are due; gone with the last one
hdb:{tenant}:delivering:{webhook}     exists while a message is being sent, or the webhook cools down (has a TTL)

A webhook is sent one message at a time, and then goes to the end of the queue: one that is slow, or has many messages
waiting, delays no other. A dispatcher that dies while sending leaves a lease behind, which expires.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from core.queue.connection import redis_errors

LEASE_SECONDS = 60.0
"""Longer than an attempt can take, with what is read and written before and after it."""

_COMMON = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function whole(number) return string.format('%.0f', number) end
local function key(what, webhook)
  local tenant, id = string.match(webhook, '^([^/]+)/([^/]+)$')
  return 'hdb:' .. tenant .. ':' .. what .. ':' .. id
end
local QUEUE = 'hdb:deliveries'
"""
_ADD = (
    _COMMON
    + """
-- webhook, message, milliseconds until it is due -> 1 when it was not there
local due = now() + tonumber(ARGV[3])
local added = redis.call('ZADD', key('deliveries', ARGV[1]), 'NX', whole(due), ARGV[2])
redis.call('ZADD', QUEUE, 'LT', whole(due), ARGV[1])
return added
"""
)
_TAKE = (
    _COMMON
    + """
-- most messages, lease -> {webhook, message, webhook, message, ...}
local most, lease, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
for _, webhook in ipairs(redis.call('ZRANGEBYSCORE', QUEUE, '-inf', whole(now()), 'LIMIT', 0, 200)) do
  if #taken / 2 >= most then break end
  local queue, hold = key('deliveries', webhook), key('delivering', webhook)
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  local held = redis.call('PTTL', hold)
  if not first[1] then
    redis.call('ZREM', QUEUE, webhook)
  elseif held > 0 then
    redis.call('ZADD', QUEUE, whole(now() + held), webhook)
  elseif tonumber(first[2]) > now() then
    redis.call('ZADD', QUEUE, first[2], webhook)
  else
    redis.call('SET', hold, first[1], 'PX', lease)
    redis.call('ZADD', queue, whole(now() + lease), first[1])
    redis.call('ZADD', QUEUE, whole(now() + lease), webhook)
    taken[#taken + 1] = webhook
    taken[#taken + 1] = first[1]
  end
end
return taken
"""
)
_END = (
    _COMMON
    + """
-- webhook, message, milliseconds until it is due again ('': it is over), milliseconds for the webhook to cool down
local webhook, message, again, cooldown = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local queue, hold = key('deliveries', webhook), key('delivering', webhook)
if again == '' then
  redis.call('ZREM', queue, message)
else
  redis.call('ZADD', queue, 'XX', whole(now() + tonumber(again)), message)
end
if redis.call('GET', hold) == message then
  if cooldown > 0 then redis.call('PEXPIRE', hold, cooldown) else redis.call('DEL', hold) end
end
local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if first[1] then
  redis.call('ZADD', QUEUE, whole(math.max(tonumber(first[2]), now())), webhook)
else
  redis.call('ZREM', QUEUE, webhook)
end
return 1
"""
)


class Due(NamedTuple):
    """A delivery that is due: the tenant, the webhook and the message."""

    tenant: str
    webhook_id: str
    message_id: str


class Schedule:
    """The due times of all deliveries. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self._redis = redis
        self._add = redis.register_script(_ADD)
        self._take = redis.register_script(_TAKE)
        self._end = redis.register_script(_END)

    def add(self, due: Due, *, delay: float = 0.0) -> bool:
        """Schedule a message to be sent in `delay` seconds. False, and no change, when it is scheduled already."""
        with redis_errors():
            return bool(self._add(args=[f"{due.tenant}/{due.webhook_id}", due.message_id, _milliseconds(delay)]))

    def has(self, due: Due) -> bool:
        """Whether the message is scheduled or being sent."""
        with redis_errors():
            return self._redis.zscore(f"hdb:{due.tenant}:deliveries:{due.webhook_id}", due.message_id) is not None

    def take(self, most: int, *, lease: float = LEASE_SECONDS) -> list[Due]:
        """At most `most` messages to send now, each to another webhook, leased for `lease` seconds. `end` each one."""
        with redis_errors():
            flat: Any = self._take(args=[most, _milliseconds(lease)])
        found = zip(flat[0::2], flat[1::2], strict=True)
        return [Due(webhook.partition("/")[0], webhook.partition("/")[2], message) for webhook, message in found]

    def end(self, due: Due, *, again: float | None = None, cooldown: float = 0.0) -> None:
        """End the attempt: the message is done, or due `again` in so many seconds.

        The webhook is sent nothing else for `cooldown` seconds.
        """
        delay = "" if again is None else _milliseconds(again)
        with redis_errors():
            self._end(args=[f"{due.tenant}/{due.webhook_id}", due.message_id, delay, _milliseconds(cooldown)])

    def remove(self, tenant: str, webhook_id: str) -> None:
        """Remove everything that is scheduled for a webhook."""
        with redis_errors():
            self._redis.zrem("hdb:deliveries", f"{tenant}/{webhook_id}")
            self._redis.delete(f"hdb:{tenant}:deliveries:{webhook_id}", f"hdb:{tenant}:delivering:{webhook_id}")

    def acquire_interval(self, name: str, seconds: float) -> bool:
        """Whether this caller gets to do `name` now: True for one caller in so many seconds."""
        with redis_errors():
            return bool(self._redis.set(f"hdb:turn:{name}", "1", px=_milliseconds(seconds), nx=True))


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
