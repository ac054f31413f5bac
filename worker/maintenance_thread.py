"""The maintenance as a thread of the worker's parent process.

The parent outlives whatever happens in its child: a step that hangs, a crash, a kill. A thread there and no process of
its own, since it needs nothing but Redis and the store, and must live exactly as long as the worker. What speaks
against a thread is the fork that replaces the child: it must not happen while the thread holds a lock (of the logger,
of a connection) that the new child would inherit locked. So forks wait for a pass to end; its waits are bounded.
"""

from __future__ import annotations

import logging
import os
import threading

from core.errors import BrokerUnavailable
from worker.maintenance import Maintenance

_log = logging.getLogger(__name__)
_passing = threading.Lock()
os.register_at_fork(before=_passing.acquire, after_in_parent=_passing.release, after_in_child=_passing.release)


class MaintenanceThread(threading.Thread):
    """A pass every `reap_seconds`, until it is stopped. No error ends it before."""

    def __init__(self, maintenance: Maintenance) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._maintenance = maintenance
        self._over = threading.Event()
        self._redis_away = False

    def run(self) -> None:
        """See Thread."""
        while not self._over.wait(self._maintenance.reap_seconds):
            with _passing:
                self._pass()

    def stop(self) -> None:
        """End it, after the pass that is going on."""
        self._over.set()
        self.join()

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
