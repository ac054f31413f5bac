"""Whether a worker may claim jobs now: not while what they make could not be kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from core.errors import StoreUnavailable

PATIENCE_SECONDS = 60.0
"""How long a notification is held; then others may have it."""
_PAUSE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Gate:
    """`gate.opens()` before each claim."""

    def __init__(
        self, ping: Callable[[], None], worker_stops: Callable[[], bool], *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """`ping` raises StoreUnavailable while the store takes no writes."""
        self._ping = ping
        self._worker_stops = worker_stops
        self._patience = patience
        self._is_shut = False

    def opens(self) -> bool:
        """Wait until the store takes writes. False: it does not in time, or the worker is to stop."""
        until = time.monotonic() + self._patience
        while not self._worker_stops():
            try:
                self._ping()
            except StoreUnavailable as error:
                if not self._is_shut:
                    _log.warning("worker.store_refuses", extra={"code": error.code, "detail": error.detail})
                self._is_shut = True
            else:
                if self._is_shut:
                    _log.info("worker.store_is_back")
                self._is_shut = False
                return True
            if time.monotonic() > until:
                break
            time.sleep(_PAUSE_SECONDS)
        return False
