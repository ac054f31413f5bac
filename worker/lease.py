"""Holding on to jobs while they run: leases are renewed, and the run is told to stop when it should.

The run reports every step; that renews the lease, tells the progress, and hears of cancels and deletions. A thread
looks after what steps cannot do themselves: renew during a long step, give the jobs back when a step does not end in
time after the worker was told to stop, and end the process when a step hangs (only that stops it; the next child takes
over).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from core.errors import BrokerUnavailable, HyperDreamBoothError, JobCanceled, OutOfTime
from core.jobs.claims import Assignment, Work
from core.jobs.ledger import Hold, Progress
from core.records import Preview

_log = logging.getLogger(__name__)
_EVENT_SECONDS = 0.25
_EXIT_HUNG, _EXIT_STOPPED = 70, 75


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: the length of a lease, the longest step, the time left after being told to stop."""

    lease: float = 15.0
    step: float = 300.0
    grace: float = 2.5


class Lease:
    """The jobs of one run, while it runs: `with Lease(...) as lease`."""

    def __init__(
        self,
        work: Work,
        assignments: Sequence[Assignment],
        told_to_stop: Callable[[], bool],
        patience: Patience,
        *,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        """`leave` ends this process from any thread."""
        self._work = work
        self._live = {assignment.claim.ref: assignment for assignment in assignments}
        self._told_to_stop = told_to_stop
        self._patience = patience
        self._leave = leave
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._keep_watch, name="lease", daemon=True)
        now = time.monotonic()
        self._step_at = self._beat_at = now
        self._event_at = 0.0
        self._mute_until = 0.0
        self._stage = ""
        self._canceled: set[str] = set()

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()

    @property
    def live(self) -> list[Assignment]:
        """The jobs that are still this run's: not canceled, not deleted, not given back."""
        return list(self._live.values())

    def on_progress(self, stage: str, step: int, total: int) -> None:
        """A step has begun or ended. At most four events a second are told, besides the first and last of a stage."""
        now = self._step_at = time.monotonic()
        told = now - self._event_at >= _EVENT_SECONDS or stage != self._stage or step >= total
        if told:
            self._event_at, self._stage = now, stage
        self._beat(Progress(stage, step, total), "progress" if told else "")
        self._let_canceled_go()

    def show(self, assignment: Assignment, preview: Preview) -> None:
        """Something of the job can be seen and used before it is over."""
        with contextlib.suppress(BrokerUnavailable):  # a pity, and no reason to stop
            self._heed(assignment, self._work.jobs.ledger.preview(assignment.claim, preview))
        self._let_canceled_go()

    def should_stop(self) -> bool:
        """Whether going on makes no sense: the worker must stop, or nobody wants any of the jobs any more.

        Asking is a sign of life, too: some steps are asked about and not reported.
        """
        now = self._step_at = time.monotonic()
        if now - self._beat_at >= _EVENT_SECONDS:
            self._beat(Progress())
            self._let_canceled_go()
        return self._told_to_stop() or not self._live

    def insist(self, assignment: Assignment) -> None:
        """Raise JobCanceled when the job is no longer this run's.

        Asked before something is stored: what a canceled job made was dropped when it was released.
        """
        if assignment.claim.ref not in self._live:
            raise JobCanceled

    def release(self, assignment: Assignment, ending: Callable[[Assignment], object]) -> None:
        """The job is no longer this run's: `ending` tells the desk. If that fails, the lease runs out by itself."""
        if self._live.pop(assignment.claim.ref, None) is None:
            return
        try:
            ending(assignment)
        except HyperDreamBoothError:
            _log.warning("lease.release_failed", extra={"job_id": assignment.job.id}, exc_info=True)

    def give_back(self, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0) -> None:
        """Let others do all jobs that are still this run's."""
        for assignment in self.live:
            self.release(assignment, partial(self._work.give_back, counted=counted, error=error, delay=delay))

    def _let_canceled_go(self) -> None:
        for assignment in self.live:
            if assignment.claim.ref in self._canceled:
                self.release(assignment, self._work.cancel)

    def _beat(self, progress: Progress, event: str = "") -> None:
        """Renew all leases; drop what is no longer ours. Without Redis go on: in the end the claim decides."""
        now = self._beat_at = time.monotonic()
        if now < self._mute_until:
            return
        for assignment in self.live:
            try:
                hold = self._work.jobs.ledger.beat(assignment.claim, progress, event=event)
            except BrokerUnavailable:
                self._mute_until = now + 1.0  # not a second's wait at every step
                return
            self._heed(assignment, hold)

    def _heed(self, assignment: Assignment, hold: Hold) -> None:
        if hold is Hold.CANCEL:
            self._canceled.add(assignment.claim.ref)
        elif hold is not Hold.HELD:
            _log.info("lease.lost", extra={"job_id": assignment.job.id, "hold": hold.value})
            self.release(assignment, self._work.abandon)

    def _keep_watch(self) -> None:
        stop_at: float | None = None
        while not self._over.wait(0.1):
            now = time.monotonic()
            if now - self._beat_at > self._patience.lease / 3:
                self._beat(Progress())
            if self._told_to_stop():
                stop_at = stop_at or now + self._patience.grace
            if stop_at and now > stop_at:
                _log.warning("lease.stop_timed_out")
                self.give_back(counted=False)
                self._leave(_EXIT_STOPPED)
            if now - self._step_at > self._patience.step:
                _log.error("lease.step_timed_out", extra={"seconds": round(now - self._step_at, 1)})
                self.give_back(counted=True, error=OutOfTime(f"A step took longer than {self._patience.step:g} s."))
                self._leave(_EXIT_HUNG)
