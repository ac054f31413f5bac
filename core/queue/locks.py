"""Locks with an end: one process of all those that share a Redis does something, the others leave it alone meanwhile.

hdb:turn:{name}     one process does `name` just now, or did it a moment ago
hdb:done            hash: when each `name` was last done to its end
"""

from __future__ import annotations

import time
from typing import Any

from redis import Redis

from core.queue.connection import redis_errors


class Locks:
    """Named locks in Redis. Raises BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def acquire(self, name: str, seconds: float) -> bool:
        """Whether this caller has the lock now, for so many seconds at most.

        Where it is not released it is an interval: one caller in so many seconds gets it. A Redis that came back empty
        has forgotten who had it, and gives it again at once.
        """
        with redis_errors():
            return bool(self._redis.set(f"hdb:turn:{name}", "1", px=round(seconds * 1000), nx=True))

    def note_done(self, name: str) -> None:
        """What the lock is for was done just now."""
        with redis_errors():
            self._redis.hset("hdb:done", name, f"{time.time():.3f}")

    def done_at(self) -> dict[str, float]:
        """When each of what was noted was last done, in seconds since 1970."""
        with redis_errors():
            noted: Any = self._redis.hgetall("hdb:done")
        return {name: float(at) for name, at in noted.items() if at.replace(".", "", 1).isdecimal()}

    def release(self, name: str) -> None:
        """Let others have it."""
        with redis_errors():
            self._redis.delete(f"hdb:turn:{name}")
