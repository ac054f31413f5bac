"""The maintenance as a thread of the worker's parent process.

The parent outlives whatever happens in its child: a step that hangs, a crash, a kill. A thread there and no process of
its own, since it needs nothing but Redis and the store, and must live exactly as long as the worker. What speaks
against a thread is the fork that replaces the child: it must not happen while the thread holds a lock (of the logger,
of a connection) that the new child would inherit locked. So forks wait for a pass to end; its waits are bounded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.errors import BrokerUnavailable
from core.heartbeat import BEAT_SECONDS, beat
from worker.maintenance import Maintenance

STUCK_SECONDS = 600.0
"""No pass takes so long: its waits are bounded."""
_log = logging.getLogger(__name__)
FORKS_WAIT = threading.Lock()
"""Held by a thread of the parent during a pass: the pool forks between two of them."""
os.register_at_fork(before=FORKS_WAIT.acquire, after_in_parent=FORKS_WAIT.release, after_in_child=FORKS_WAIT.release)


class MaintenanceThread(threading.Thread):
    """A pass every `reap_seconds`, until it is stopped. No error ends it before."""

    def __init__(self, maintenance: Maintenance) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._maintenance = maintenance
        self._over = threading.Event()
        self._redis_away = False
        self._began: float | None = None

    def run(self) -> None:
        """See Thread."""
        while not self._over.wait(self._maintenance.reap_seconds):
            with FORKS_WAIT:
                self._began = time.monotonic()
                self._pass()
                self._began = None

    def stop(self) -> None:
        """End it, after the pass that is going on."""
        self._over.set()
        self.join()

    @property
    def hangs(self) -> bool:
        """Whether a pass does not end; then no new child can be made either."""
        began = self._began
        return began is not None and time.monotonic() - began > STUCK_SECONDS

    def _pass(self) -> None:
        try:
            self._maintenance.tick()
            self._redis_away = False
        except BrokerUnavailable:
            if not self._redis_away:  # logged once an outage
                _log.warning("maintenance.redis_unavailable")
            self._redis_away = True
        except Exception:  # noqa: BLE001 - what goes wrong now may go right in two seconds
            _log.exception("maintenance.crashed")


class HeartbeatThread(threading.Thread):
    """Touches a file while the worker is healthy, from its first moment on, whether Redis is there or not."""

    def __init__(self, file: Path, is_healthy: Callable[[], bool]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._file = file
        self._is_healthy = is_healthy
        self._over = threading.Event()

    def run(self) -> None:
        """See Thread."""
        while True:
            if self._is_healthy():
                with contextlib.suppress(OSError):  # the check finds the file old
                    beat(self._file)
            if self._over.wait(BEAT_SECONDS):
                return

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()
