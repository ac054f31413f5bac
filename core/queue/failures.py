"""What keeps failing, and since when: erasures that the maintenance tries again and again must not fail in silence.

hdb:failing:erasures    hash: what fails, with the times of its first and its last failure; gone with the first success
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from core.errors import BrokerUnavailable
from core.queue.connection import redis_errors

OVERDUE_SECONDS = 300.0
"""What has failed for so long is overdue."""
_FORGOTTEN_SECONDS = 3600.0
"""What has not been tried for so long is no longer to be done."""
_KEY = "hdb:failing:erasures"

_log = logging.getLogger(__name__)


class Failures:
    """Tries what has to succeed in the end, and knows what has not for too long."""

    def __init__(self, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self._redis = redis

    def attempt(self, what: str, ref: str, act: Callable[[], object]) -> bool:
        """Whether it was done. What fails is logged and noted, so that it keeps nothing else from being done.

        The log has it as an error once it is overdue.
        """
        name = f"{what} {ref}"
        try:
            act()
        except Exception:  # noqa: BLE001 - whatever it is, the others must not wait for it
            first = self._note(name)
            level = logging.ERROR if time.time() - first >= OVERDUE_SECONDS else logging.WARNING
            facts = {"what": what, "ref": ref, "since": round(first)}
            _log.log(level, "maintenance.failed", extra=facts, exc_info=True)
            return False
        with contextlib.suppress(BrokerUnavailable), redis_errors():
            self._redis.hdel(_KEY, name)
        return True

    def overdue(self) -> dict[str, float]:
        """What has failed for OVERDUE_SECONDS, with the time of its first failure. Raises BrokerUnavailable."""
        now = time.time()
        found = {name: first for name, (first, last) in self._read().items() if now - last < _FORGOTTEN_SECONDS}
        return {name: first for name, first in found.items() if now - first >= OVERDUE_SECONDS}

    def _note(self, name: str) -> float:
        """Note a failure. Returns the time of the first one."""
        now = time.time()
        with contextlib.suppress(BrokerUnavailable), redis_errors():
            first, last = self._read().get(name, (now, now))
            first = now if now - last > _FORGOTTEN_SECONDS else first
            self._redis.hset(_KEY, name, f"{first:.3f} {now:.3f}")
            self._redis.expire(_KEY, round(_FORGOTTEN_SECONDS))
            return first
        return now

    def _read(self) -> dict[str, tuple[float, float]]:
        with redis_errors():
            noted: Any = self._redis.hgetall(_KEY)
        found: dict[str, tuple[float, float]] = {}
        for name, times in noted.items():
            with contextlib.suppress(ValueError):  # nothing that was noted here
                first, last = map(float, times.split())
                found[name] = (first, last)
        return found
