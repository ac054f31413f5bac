"""When each delivery is due, in Redis. Redis may come back empty: the store has a marker of each pending delivery.

hdb:deliveries                        webhooks ("tenant/id") by the time their next message is due
hdb:{tenant}:deliveries:{webhook}     its messages by the time they are due; gone with the last one
hdb:{tenant}:sending:{webhook}        those of them that are being sent, by the end of their lease
hdb:{tenant}:window:{webhook}         how many it may be sent at the same time; 1 when there is none (has a TTL)
hdb:{tenant}:cooling:{webhook}        exists while it is sent nothing (has a TTL)
hdb:unproven                          webhooks that are sent one message at a time, by the end of that one's lease

Webhooks take turns. Each is sent one message at a time at first, one more with each quick answer, MOST_AT_ONCE at most,
and after a failure or a slow answer one at a time again. Those that are sent one at a time share MOST_UNPROVEN places:
slow and failing receivers, however many, take nothing from the others. A dispatcher that dies while sending leaves
leases behind, which expire.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from redis import Redis

from core.queue.connection import redis_errors

MOST_AT_ONCE = 8
"""Messages that a webhook is sent at the same time."""
MOST_UNPROVEN = 64
"""Messages that are being sent at the same time, of all webhooks that are sent one at a time."""
WINDOW_SECONDS = 60.0
"""How long a quick answer counts."""
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
  if not id then tenant, id = 'none', webhook end  -- no webhook's name: there is nothing under this key
  return 'hdb:' .. tenant .. ':' .. what .. ':' .. id
end
local QUEUE, UNPROVEN = 'hdb:deliveries', 'hdb:unproven'
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
-- most messages, lease, most of those that are sent one at a time -> {webhook, message, webhook, message, ...}
local most, lease, most_unproven, taken, time = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {}, now()
redis.call('ZREMRANGEBYSCORE', UNPROVEN, '-inf', whole(time))
local found = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', whole(time), 'LIMIT', 0, 200)

-- Take one message of a webhook; false when it has none for now.
local function take(webhook)
  local queue, sending = key('deliveries', webhook), key('sending', webhook)
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  local cools = redis.call('PTTL', key('cooling', webhook))
  redis.call('ZREMRANGEBYSCORE', sending, '-inf', whole(time))
  local window = tonumber(redis.call('GET', key('window', webhook)) or 1)
  if not first[1] then
    redis.call('ZREM', QUEUE, webhook)
  elseif cools > 0 then
    redis.call('ZADD', QUEUE, whole(time + cools), webhook)
  elseif redis.call('ZCARD', sending) >= window then  -- until one of them ends
    redis.call('ZADD', QUEUE, redis.call('ZRANGE', sending, 0, 0, 'WITHSCORES')[2], webhook)
  elseif tonumber(first[2]) > time then
    redis.call('ZADD', QUEUE, first[2], webhook)
  elseif window == 1 and redis.call('ZCARD', UNPROVEN) >= most_unproven then
    redis.call('ZADD', QUEUE, whole(time + 200), webhook)
  else
    if window == 1 then redis.call('ZADD', UNPROVEN, whole(time + lease), webhook) end
    redis.call('ZADD', sending, whole(time + lease), first[1])
    redis.call('PEXPIRE', sending, lease)
    redis.call('ZADD', queue, whole(time + lease), first[1])
    taken[#taken + 1] = webhook
    taken[#taken + 1] = first[1]
    return true
  end
  return false
end

while #found > 0 and #taken / 2 < most do
  local more = {}
  for _, webhook in ipairs(found) do
    if #taken / 2 >= most then break end
    if take(webhook) then more[#more + 1] = webhook end
  end
  found = more
end
for i = 1, #taken, 2 do  -- whoever had a turn goes to the end
  if redis.call('ZSCORE', QUEUE, taken[i]) and tonumber(redis.call('ZSCORE', QUEUE, taken[i])) <= time then
    redis.call('ZADD', QUEUE, whole(time), taken[i])
  end
end
return taken
"""
)
_END = (
    _COMMON
    + """
-- webhook, message, milliseconds until it is due again ('': it is over), milliseconds for the webhook to cool down,
-- how it answered ('quick', 'slow' or ''), most of a webhook, milliseconds that a quick answer counts
local webhook, message, again, cooldown, answer = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local window = key('window', webhook)
local queue, sending = key('deliveries', webhook), key('sending', webhook)
if again == '' then
  redis.call('ZREM', queue, message)
else
  redis.call('ZADD', queue, 'XX', whole(now() + tonumber(again)), message)
end
if redis.call('ZREM', sending, message) == 1 then
  redis.call('ZREM', UNPROVEN, webhook)
  if answer == 'quick' then
    local size = math.min(tonumber(redis.call('GET', window) or 1) + 1, tonumber(ARGV[6]))
    redis.call('SET', window, size, 'PX', ARGV[7])
  elseif answer == 'slow' then
    redis.call('DEL', window)
  end
  if cooldown > 0 then redis.call('SET', key('cooling', webhook), '1', 'PX', cooldown) end
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


class Backlog(NamedTuple):
    """How many messages wait, and for how many seconds the first of them has been due."""

    messages: int
    overdue: float


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

    def take(self, most: int, *, lease: float = LEASE_SECONDS, unproven: int = MOST_UNPROVEN) -> list[Due]:
        """At most `most` messages to send now, leased for `lease` seconds. `end` each one."""
        with redis_errors():
            flat: Any = self._take(args=[most, _milliseconds(lease), unproven])
        found = zip(flat[0::2], flat[1::2], strict=True)
        named = [(*webhook.partition("/")[::2], message) for webhook, message in found if webhook.count("/") == 1]
        return [Due(tenant, webhook_id, message) for tenant, webhook_id, message in named]

    def end(
        self,
        due: Due,
        *,
        again: float | None = None,
        cooldown: float = 0.0,
        answer: Literal["quick", "slow", ""] = "",
    ) -> None:
        """End the attempt: the message is done, or due `again` in so many seconds.

        The webhook is sent nothing else for `cooldown` seconds. The `answer` says how many messages it may be sent at
        the same time from now on; a failure counts as slow, and "" says that nothing was sent.
        """
        delay = "" if again is None else _milliseconds(again)
        webhook, counts = f"{due.tenant}/{due.webhook_id}", _milliseconds(WINDOW_SECONDS)
        with redis_errors():
            self._end(args=[webhook, due.message_id, delay, _milliseconds(cooldown), answer, MOST_AT_ONCE, counts])

    def remove(self, tenant: str, webhook_id: str) -> None:
        """Remove everything that is scheduled for a webhook."""
        with redis_errors():
            for every in ("hdb:deliveries", "hdb:unproven"):
                self._redis.zrem(every, f"{tenant}/{webhook_id}")
            kinds = ("deliveries", "sending", "window", "cooling")
            self._redis.delete(*(f"hdb:{tenant}:{kind}:{webhook_id}" for kind in kinds))

    def backlog(self) -> Backlog:
        """What waits to be sent: of the thousand webhooks that are due first."""
        with redis_errors():
            webhooks: Any = self._redis.zrange("hdb:deliveries", 0, 999, withscores=True)
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.time()
            for webhook, _ in webhooks:
                tenant, _, name = webhook.partition("/")
                pipeline.zcard(f"hdb:{tenant}:deliveries:{name}")
            (seconds, _), *counts = pipeline.execute()
        due = min((score for _, score in webhooks), default=seconds * 1000) / 1000
        return Backlog(sum(counts), max(0.0, seconds - due))

    def acquire_interval(self, name: str, seconds: float) -> bool:
        """Whether this caller gets to do `name` now: True for one caller in so many seconds."""
        with redis_errors():
            return bool(self._redis.set(f"hdb:turn:{name}", "1", px=_milliseconds(seconds), nx=True))


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
