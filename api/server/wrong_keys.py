"""Wrong keys by address: so many are tried out in a minute, then an address has to wait. Of each process by itself."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from api.server.errors import TooManyWrongKeys

MINUTE = 60.0
_MOST_ADDRESSES = 10_000
"""Those that were wrong longest ago are forgotten first."""

_log = logging.getLogger(__name__)


class WrongKeys:
    """A leaky bucket for each address, which holds a whole minute's wrong keys."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` 0: no limit."""
        self._each = MINUTE / per_minute if per_minute else 0.0
        self._clock = clock
        self._empty_at: OrderedDict[str, float] = OrderedDict()
        """When the bucket of an address is empty again."""

    def refuse(self, address: str) -> None:
        """Raise TooManyWrongKeys when too many keys from there were wrong."""
        wait = self._empty_at.get(_network(address), 0.0) + self._each - self._clock() - MINUTE
        if self._each and wait > 0:
            raise TooManyWrongKeys(
                f"Too many keys from this address were wrong; no other one is tried for {math.ceil(wait)} s.",
                retry_after=wait,
            )

    def note(self, address: str, reason: str, key_id: str) -> None:
        """Count a wrong key, and log it: whence, why, and the id of the key if there is one. Never the key."""
        _log.warning("key.refused", extra={"address": address, "reason": reason, "key_id": key_id})
        if not self._each:
            return
        name = _network(address)
        self._empty_at[name] = max(self._empty_at.get(name, 0.0), self._clock()) + self._each
        self._empty_at.move_to_end(name)
        if len(self._empty_at) > _MOST_ADDRESSES:
            self._empty_at.popitem(last=False)
        if self._empty_at[name] + self._each - self._clock() > MINUTE:
            _log.warning("address.throttled", extra={"address": address})


def _network(address: str) -> str:
    """Whoever has an IPv6 address has 2**64 of them: they count as one."""
    try:
        known = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(known.ipv4_mapped or ipaddress.IPv6Network((int(known), 64), strict=False))
