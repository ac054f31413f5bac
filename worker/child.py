"""The worker's child process: the one that owns the device. Everything it has is made after the fork."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from core.errors import HyperDreamBoothError
from core.jobs.claims import Work
from core.jobs.service import open_jobs
from core.records import JobKind
from core.settings import Settings
from worker.engine import load_engine
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner

_log = logging.getLogger(__name__)


class Child:
    """What a child keeps between bells."""

    def __init__(self, settings: Settings, parent_stops: Callable[[], bool]) -> None:
        """Loads the engine, which may take minutes. Raises BundleError and SettingsError."""
        self._parent_stops = parent_stops
        self._terminated = False
        began = time.monotonic()
        engine = load_engine(settings)
        self._answerer = JobRunner(
            Work(open_jobs(settings)),
            engine,
            told_to_stop=self.told_to_stop,
            patience=Patience(settings.lease_seconds, settings.step_time_limit, settings.stop_grace),
            batch=BatchLimits(rows=settings.batch_rows),
        )
        _log.info("engine.loaded", extra={"bundle": engine.name, "seconds": round(time.monotonic() - began, 2)})

    def told_to_stop(self) -> bool:
        """Whether the worker is shutting down, or this process was told to."""
        return self._terminated or self._parent_stops()

    def answer(self, kind: JobKind, ref: str) -> None:
        """Answer a bell."""
        with self._heeding_sigterm():
            self._answerer.answer(kind, ref)

    @contextlib.contextmanager
    def _heeding_sigterm(self) -> Iterator[None]:
        """While jobs run, SIGTERM (to the whole group, say) gives them back after the step; then it takes effect."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self._terminated = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            if self._terminated:
                os.kill(os.getpid(), signal.SIGTERM)


def start_child(settings: Settings, parent_stops: Callable[[], bool]) -> Child | None:
    """The child, or None when its engine cannot be loaded: then the whole worker ends, instead of trying for ever."""
    try:
        return Child(settings, parent_stops)
    except HyperDreamBoothError as error:
        _log.error("engine.load_failed", extra={"code": error.code, "detail": error.detail})
        os.kill(os.getppid(), signal.SIGTERM)
        return None
