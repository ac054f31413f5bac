"""The parent watches its child, and reports how it is.

It gives back what a dead child held, ends one that is frozen, and renews the leases of one that works.

A step that holds the interpreter's lock, or a process that is stopped, cannot be noticed by its own threads; and a busy
machine must not cost a lease because those threads come too late.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time

from core.errors import BrokerUnavailable
from core.jobs.ledger import Claim
from core.services import Services
from worker.shared import Shared

_log = logging.getLogger(__name__)
_PASS_SECONDS, _REPORT_SECONDS = 0.1, 1.0
_watches: list[ChildWatch] = []
_passing = threading.Lock()


class ChildWatch(threading.Thread):
    """Checks ten times a second, until it is stopped."""

    def __init__(self, shared: Shared, services: Services, name: str, *, lease: float, frozen: float) -> None:
        """`lease` as in the ledger; a child whose threads did not run for `frozen` seconds is ended.

        The worker `name` is reported as alive; and as able to take jobs, or in quarantine, when it is.
        """
        super().__init__(name="child-watch", daemon=True)
        self._shared = shared
        self._name = name
        self._claims = services.claims
        self._workers = services.workers
        self._lease = lease
        self._frozen = frozen
        self._renewed_at = self._reported_at = 0.0
        self._lost: list[Claim] = []
        self._over = threading.Event()
        _watches.append(self)

    def run(self) -> None:
        """See Thread."""
        while not self._over.wait(_PASS_SECONDS):
            with _passing:
                try:
                    self._pass()
                except BrokerUnavailable:
                    pass  # it is tried again; the maintenance logs it
                except Exception:  # noqa: BLE001 - it may go right in a moment
                    _log.exception("child_watch.crashed")

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()
        with contextlib.suppress(BrokerUnavailable):
            self._workers.leave(self._name)

    def collect(self) -> None:
        """Remember what a dead child held, before the next one begins to write."""
        held = self._shared.claims()
        if held and is_dead(self._shared.pid.value):
            self._shared.hold([])
            self._lost += held
            self._shared.note_failure(held[0].ref, rests=False)
            _log.warning("child.died", extra={"jobs": len(held)})

    def _pass(self) -> None:
        self.collect()
        held = self._shared.claims()
        if held and self._shared.silent_seconds() > self._frozen:
            _log.error("child.frozen", extra={"seconds": round(self._shared.silent_seconds(), 1), "jobs": len(held)})
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._shared.pid.value, signal.SIGKILL)
        if self._lost:
            self._claims.expire(self._lost)
            self._lost = []
        now = time.monotonic()
        if held and now - self._renewed_at > self._lease / 3:
            self._claims.renew(held)
            self._renewed_at = now
        if now - self._reported_at > _REPORT_SECONDS:
            is_quarantined, is_loaded = self._shared.is_quarantined, bool(self._shared.loaded.value)
            self._workers.beat(self._name, is_loaded=is_loaded and not is_quarantined, is_quarantined=is_quarantined)
            self._reported_at = now


def is_dead(pid: int) -> bool:
    """Whether a child of this process has ended; it is not reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _before_fork() -> None:
    _passing.acquire()
    for watch in _watches:
        watch.collect()


def _in_child() -> None:
    _watches.clear()
    _passing.release()


os.register_at_fork(before=_before_fork, after_in_parent=_passing.release, after_in_child=_in_child)
