"""Memory for the large bodies of all requests: a budget, of which each tenant may hold a share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import anyio

from core.errors import Unavailable

BODY_MEMORY_BYTES = 48 * 1024 * 1024
TENANT_BYTES = 24 * 1024 * 1024
"""What one tenant may hold of it."""
MAX_WAIT_SECONDS = 20.0
"""How long a large body waits for memory before it is refused."""


@dataclass(eq=False)
class _Waiting:
    tenant: str
    size: int
    granted: anyio.Event = field(default_factory=anyio.Event)


class BodyMemory:
    """First come, first served; but whoever waits for their own share keeps no other tenant waiting."""

    def __init__(self, size: int = BODY_MEMORY_BYTES, share: int = TENANT_BYTES) -> None:
        self._free = size
        self._share = share
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    async def take(self, tenant: str, size: int) -> None:
        """Take `size` bytes, waiting for them if need be. Raises Unavailable after MAX_WAIT_SECONDS."""
        waiting = _Waiting(tenant, size)
        self._waiting.append(waiting)
        self._grant()
        try:
            with anyio.move_on_after(MAX_WAIT_SECONDS):
                await waiting.granted.wait()
        finally:
            if not waiting.granted.is_set():
                self._waiting.remove(waiting)
                self._grant()
        if not waiting.granted.is_set():
            raise Unavailable("Too many uploads are coming in: send it again in a while.", retry_after=5.0)

    def give_back(self, tenant: str, size: int) -> None:
        """Give `size` bytes back."""
        self._free += size
        self._held[tenant] -= size
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    def _grant(self) -> None:
        for each in list(self._waiting):
            if self._held[each.tenant] + each.size > self._share:
                continue
            if each.size > self._free:
                return
            self._free -= each.size
            self._held[each.tenant] += each.size
            self._waiting.remove(each)
            each.granted.set()
