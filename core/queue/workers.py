"""Which workers there are, and which of them have loaded their model.

hdb:workers            workers by the time they were last heard of
hdb:workers:loaded     those that can take jobs, likewise
hdb:workers:quarantined  those that claim nothing, because they failed several times in a row
"""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from core.queue.connection import redis_errors

_ALL, _LOADED, _QUARANTINED = "hdb:workers", "hdb:workers:loaded", "hdb:workers:quarantined"
ALIVE_SECONDS = 20.0
"""A worker that was not heard of for so long is gone."""


class Count(NamedTuple):
    """How many workers there are, and how many of them have loaded their model."""

    alive: int
    loaded: int


class Workers:
    """The workers that share a Redis. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self._redis = redis

    def beat(self, name: str, *, is_loaded: bool, is_quarantined: bool = False) -> None:
        """The worker of this name is there. Those that were not heard of for an hour are forgotten."""
        with redis_errors():
            now = self._now()
            pipeline = self._redis.pipeline()
            pipeline.zadd(_ALL, {name: now})
            for key, belongs in ((_LOADED, is_loaded), (_QUARANTINED, is_quarantined)):
                pipeline.zadd(key, {name: now}) if belongs else pipeline.zrem(key, name)
            for key in (_ALL, _LOADED, _QUARANTINED):
                pipeline.zremrangebyscore(key, "-inf", now - 3600)
            pipeline.execute()

    def leave(self, name: str) -> None:
        """The worker stops."""
        with redis_errors():
            for key in (_ALL, _LOADED, _QUARANTINED):
                self._redis.zrem(key, name)

    def count(self) -> Count:
        """Those that were heard of lately."""
        with redis_errors():
            since = self._now() - ALIVE_SECONDS
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zcount(_ALL, since, "+inf")
            pipeline.zcount(_LOADED, since, "+inf")
            return Count(*map(int, pipeline.execute()))

    def quarantined(self) -> int:
        """How many of them are in quarantine."""
        with redis_errors():
            count: Any = self._redis.zcount(_QUARANTINED, self._now() - ALIVE_SECONDS, "+inf")
        return int(count)

    def _now(self) -> float:
        clock: Any = self._redis.time()
        return float(clock[0]) + float(clock[1]) / 1e6
