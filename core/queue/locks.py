"""Locks with an end: one process of all those that share a Redis does something, the others leave it alone meanwhile.

hdb:turn:{name}     one process does `name` just now, or did it a moment ago
"""

from __future__ import annotations

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

    def release(self, name: str) -> None:
        """Let others have it."""
        with redis_errors():
            self._redis.delete(f"hdb:turn:{name}")
