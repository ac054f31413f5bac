"""Holding on to jobs while they run: leases are renewed, and the run stops when it should.

The run reports every step; that renews the lease, notes the progress, and learns of cancels and deletions. A thread
does what steps cannot do themselves: renew during a long step, give the jobs back when a step does not end in time
after the worker was told to stop, and end the process when a step hangs (only that stops it; the next child takes
over).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from core.errors import BrokerUnavailable, HyperDreamBoothError, JobCanceled, OutOfTime, StoreUnavailable, Unavailable
from core.jobs.claims import Assignment, Claims
from core.jobs.ledger import LeaseState, Progress
from core.records import Preview
from worker.overall_progress import COSTS, OverallProgress
from worker.shared import Shared
from worker.spans import RunSpans

_log = logging.getLogger(__name__)
_EVENT_SECONDS = 0.25
_OUTAGE_SECONDS = 0.5
_EXIT_HUNG, _EXIT_STOPPED = 70, 75
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: the length of a lease, the longest step, the time left after the order to stop.

    `outage`: how long what was made is kept for a store that does not take it. `retry`: how long a job waits that was
    given back after a failure, the first time. `beat`: the least time between two signs of life within a stage.
    """

    lease: float = 15.0
    step: float = 300.0
    grace: float = 2.5
    beat: float = 0.1
    outage: float = 600.0
    retry: float = 5.0


class Lease:
    """The jobs of one run, while it runs: `with Lease(...) as lease`."""

    def __init__(
        self,
        claims: Claims,
        assignments: Sequence[Assignment],
        worker_stops: Callable[[], bool],
        patience: Patience,
        *,
        costs: Mapping[str, float] = COSTS,
        leave: Callable[[int], None] = os._exit,
        shared: Shared | None = None,
        holder: Lease | None = None,
    ) -> None:
        """`costs` are the seconds that stages take (OverallProgress); `leave` ends this process from any thread.

        The parent learns through `shared` what is held, and whether this process's threads run. `holder` is the lease
        of a run that lets this one in between two of its steps, and holds its own jobs meanwhile.
        """
        self._shared = shared or Shared()
        self._holder = holder
        self.guest: Lease | None = None
        self._claims = claims
        self._live = {assignment.claim.ref: assignment for assignment in assignments}
        self._worker_stops = worker_stops
        self._patience = patience
        self._leave = leave
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._keep_watch, name="lease", daemon=True)
        now = time.monotonic()
        self._step_at = self._beat_at = now
        self._event_at = 0.0
        self._mute_until = 0.0
        self._stage = ""
        self._overall = OverallProgress(costs)
        self._canceled: set[str] = set()
        self.outage: Unavailable | None = None
        self._spans = RunSpans(assignments)

    def __enter__(self) -> Self:
        if self._holder:
            self._holder.guest = self
        self._note_held()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()
        if self._holder:
            self._holder.guest = None
        self._shared.hold([assignment.claim for assignment in self._holder.live] if self._holder else [])
        self._spans.end_all()

    @property
    def live(self) -> list[Assignment]:
        """The jobs that are still this run's: not canceled, not deleted, not given back."""
        return list(self._live.values())

    def on_progress(self, stage: str, step: int, total: int) -> None:
        """A step has begun or ended. Published four times a second at most, besides the first and last of a stage."""
        self._spans.step(stage, step, total)
        now = self._step_at = time.monotonic()
        is_event = now - self._event_at >= _EVENT_SECONDS or stage != self._stage or step >= total
        if is_event:
            self._event_at, self._stage = now, stage
        share = self._overall.at(stage, step, total)
        progress = Progress(stage, step, total, share, self._overall.seconds_left())
        if is_event or now - self._beat_at >= self._patience.beat:
            self._beat(progress, "progress" if is_event else "")
        self._let_canceled_go()

    def publish(self, assignment: Assignment, preview: Preview) -> None:
        """Something of the job can be seen and used before it is over."""
        with contextlib.suppress(BrokerUnavailable):  # no reason to stop
            self._heed(assignment, self._claims.preview(assignment, preview))
        self._let_canceled_go()

    def should_stop(self) -> bool:
        """Whether going on makes no sense: the worker must stop, or none of the jobs is this run's any more.

        A call is a sign of life, too: some steps call this and report no progress.
        """
        if self._holder is not None:
            self._holder.should_stop()  # its own run sees what comes of that
        now = self._step_at = time.monotonic()
        if now - self._beat_at >= _EVENT_SECONDS:
            self._beat(Progress())
            self._let_canceled_go()
        return self._worker_stops() or not self._live

    def outlast(self, call: Callable[[], AnswerT]) -> AnswerT:
        """What `call` returns, as soon as the store takes it: an outage must not cost what was made.

        `outage` is its error from then on. Raises JobCanceled when the run is to stop meanwhile, and the error when the
        outage is longer than there is patience for.
        """
        until = time.monotonic() + self._patience.outage
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                if self.outage is None:
                    self.log(logging.WARNING, "lease.outage", code=error.code, detail=error.detail)
                self.outage = error
                if time.monotonic() > until:
                    raise
            if self.should_stop():
                raise JobCanceled
            time.sleep(_OUTAGE_SECONDS)

    def require(self, assignment: Assignment) -> None:
        """Raise JobCanceled when the job is no longer this run's.

        Called before something is stored: what a canceled job made was dropped when it was released.
        """
        if assignment.claim.ref not in self._live:
            raise JobCanceled

    def release(self, assignment: Assignment, ending: Callable[[Assignment], object], *, error: str = "") -> None:
        """The job is no longer this run's: `ending` notes that. If that fails, the lease runs out by itself.

        `error` is the code of what it ended with.
        """
        if self._live.pop(assignment.claim.ref, None) is None:
            return
        self._spans.end(assignment.claim.ref, error=error)
        with assignment.logged():
            try:
                ending(assignment)
            except HyperDreamBoothError:
                _log.warning("lease.release_failed", exc_info=True)
        self._note_held()

    def log(self, level: int, event: str, *, exc_info: bool = False, **facts: object) -> None:
        """Log an event of the run once for each of its jobs, with the ids of its request."""
        for assignment in self.live:
            with assignment.logged():
                _log.log(level, event, extra=facts, exc_info=exc_info)

    def give_back(self, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0) -> None:
        """Let others do all jobs that are still this run's."""
        for assignment in self.live:
            give_back = partial(self._claims.give_back, counted=counted, error=error, delay=delay)
            self.release(assignment, give_back, error=error.code if error else "")

    def _give_back_holder(self) -> None:
        if self._holder is not None:
            self._holder.give_back(counted=False)

    def _note_held(self) -> None:
        self._shared.beat()
        first = self._holder or self
        held = first.live + (first.guest.live if first.guest else [])
        self._shared.hold([assignment.claim for assignment in held])

    def _let_canceled_go(self) -> None:
        for assignment in self.live:
            if assignment.claim.ref in self._canceled:
                self.release(assignment, self._claims.cancel)

    def _beat(self, progress: Progress, event: str = "") -> None:
        """Renew all leases; drop what is no longer this run's. Without Redis go on: in the end the claim decides."""
        now = self._beat_at = time.monotonic()
        if now < self._mute_until:
            return
        for assignment in self.live:
            try:
                state = self._claims.beat(assignment, progress, event=event)
            except BrokerUnavailable:
                self._mute_until = now + 1.0  # not a second's wait at every step
                return
            self._heed(assignment, state)

    def _heed(self, assignment: Assignment, state: LeaseState) -> None:
        if state is LeaseState.CANCEL:
            self._canceled.add(assignment.claim.ref)
        elif state is not LeaseState.HELD:
            with assignment.logged():
                _log.info("lease.lost", extra={"state": state.value})
            self.release(assignment, self._claims.abandon)

    def _keep_watch(self) -> None:
        stop_at: float | None = None
        while not self._over.wait(0.1):
            self._shared.beat()
            now = time.monotonic()
            if now - self._beat_at > self._patience.lease / 3:
                self._beat(Progress())
            if self._worker_stops():
                stop_at = stop_at or now + self._patience.grace
            if stop_at and now > stop_at:
                self.log(logging.WARNING, "lease.stop_timed_out")
                self.give_back(counted=False)
                self._give_back_holder()
                self._leave(_EXIT_STOPPED)
            if now - self._step_at > self._patience.step:
                self.log(logging.ERROR, "lease.step_timed_out", seconds=round(now - self._step_at, 1))
                self.give_back(counted=True, error=OutOfTime(f"A step took longer than {self._patience.step:g} s."))
                self._give_back_holder()
                self._leave(_EXIT_HUNG)
