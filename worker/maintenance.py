"""What keeps the service going when a process dies, and what is due from time to time: one pass is `tick()`.

Any number of workers may run it; a lock in Redis gives each interval to one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from core.services import Services

_SHARE = 0.5
"""Of the time between two passes, what reconciling takes of one."""


class Maintenance:
    """One pass at a time: `tick()`, every `reap_seconds`."""

    def __init__(
        self,
        services: Services,
        *,
        reap_seconds: float = 2.0,
        reconcile_seconds: float = 30.0,
        erase_seconds: float = 1860.0,
        batch_window: int = 64,
        batch_kept_days: int = 30,
    ) -> None:
        """`erase_seconds`: how long after a deletion a late worker may still write to the subject.

        `batch_window` as in BatchScheduler; batches are deleted after `batch_kept_days`, unless it is 0.
        """
        self._services = services
        self.reap_seconds = reap_seconds
        self.reconcile_seconds = reconcile_seconds
        self.erase_seconds = erase_seconds
        self.batch_kept_days = batch_kept_days
        self._reconciling: Iterator[None] | None = None
        self.scheduler = services.scheduler(window=batch_window, erase_seconds=erase_seconds)

    def tick(self) -> None:
        """Do what is due, where this process gets the lock. Raises BrokerUnavailable when Redis is not there."""
        locks = self._services.locks
        acquire, done = locks.acquire, locks.note_done
        # Slightly early, so that a clock that is a little off does not skip every second interval.
        if acquire("reap", self.reap_seconds * 0.9):
            self._services.recovery.reap()
            done("reap")
        if self._reconciling is None and acquire("reconcile", self.reconcile_seconds):
            self._reconciling = self._services.recovery.reconciling()
        if self._reconciling and self._go_on(self._reconciling):
            self._reconciling = None
            done("reconcile")
            self.finish_erasures()
            done("erase")
        if acquire("receipts", 3600):
            self._services.drop_old()
            self.scheduler.drop_old(self.batch_kept_days * 24 * 3600.0)
            done("receipts")
        if acquire("feed", self.reap_seconds * 0.9):
            self.scheduler.feed()
            done("feed")

    def _go_on(self, reconciling: Iterator[None]) -> bool:
        """Reconcile for a part of a pass; with many jobs it takes several. Whether it is done."""
        until = time.monotonic() + self.reap_seconds * _SHARE
        return all(time.monotonic() <= until for _ in reconciling)

    def finish_erasures(self) -> None:
        """Erase deleted subjects again, until no worker can be left that writes to them."""
        self._services.deletion.erase_again(self.erase_seconds)
