"""Whether requests can be served, found out on a thread of its own: no other request can make it slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from anyio import CapacityLimiter, to_thread

KNOWN_SECONDS = 0.5
"""How long an answer is good for: however often it is asked for, Redis and the store are asked twice a second."""


class Readiness:
    """`await readiness.checks()`: the error's code, or "ok", for each thing that is needed."""

    def __init__(self, check: Callable[[], Mapping[str, str]]) -> None:
        """`check` never raises."""
        self._check = check
        self._place = CapacityLimiter(1)
        self._known: Mapping[str, str] = {}
        self._until = 0.0

    async def checks(self) -> dict[str, str]:
        """As of now, or of a moment ago."""
        return dict(await to_thread.run_sync(self._now, limiter=self._place))

    def _now(self) -> Mapping[str, str]:
        if time.monotonic() >= self._until:
            self._known = self._check()
            self._until = time.monotonic() + KNOWN_SECONDS
        return self._known
