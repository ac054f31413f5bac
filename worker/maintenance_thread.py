"""The reaper as a thread of the worker's parent process.

The parent outlives whatever happens in its child: a step that hangs, a crash, a kill. A thread there and no process of
its own, since it needs nothing but Redis and the store, and must live exactly as long as the worker. What speaks
against a thread is the fork that replaces the child: it must not happen while the thread holds a lock (of the logger,
of a connection) that the new child would inherit locked. So forks wait for a look around to end; its waits are bounded.
"""

from __future__ import annotations

import logging
import os
import threading

from core.errors import BrokerUnavailable
from worker.maintenance import Maintenance

_log = logging.getLogger(__name__)
_looking = threading.Lock()
os.register_at_fork(before=_looking.acquire, after_in_parent=_looking.release, after_in_child=_looking.release)


class MaintenanceThread(threading.Thread):
    """Looks around every `reap_seconds`, until it is stopped. Nothing ends it before."""

    def __init__(self, reaper: Maintenance) -> None:
        super().__init__(name="reaper", daemon=True)
        self._reaper = reaper
        self._over = threading.Event()
        self._redis_away = False

    def run(self) -> None:
        """See Thread."""
        while not self._over.wait(self._reaper.reap_seconds):
            with _looking:
                self._look_around()

    def stop(self) -> None:
        """End it, after the look around that is going on."""
        self._over.set()
        self.join()

    def _look_around(self) -> None:
        try:
            self._reaper.tick()
            self._redis_away = False
        except BrokerUnavailable:
            if not self._redis_away:  # said once an outage
                _log.warning("maintenance.redis_unavailable")
            self._redis_away = True
        except Exception:  # noqa: BLE001 - what goes wrong now may go right in two seconds
            _log.exception("maintenance.crashed")
