"""The worker's child process: the one that owns the device. Everything it has is made after the fork."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType

from core.errors import HyperDreamBoothError, StoreUnavailable
from core.records import JobKind
from core.services import Services, open_services
from core.settings import Settings
from core.tracing import tracer
from worker.engine import Engine, load_engine
from worker.gate import Gate
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner
from worker.shared import QUARANTINE_FAILURES, Shared

EXIT_SICK = 71
_log = logging.getLogger(__name__)


class Child:
    """What a child keeps between notifications."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        """Loads the engine, which may take minutes, and tests it. Raises BundleError, SettingsError and any other."""
        self._shared = shared
        self._terminated = False
        began = time.monotonic()
        tracer.start("hyperdreambooth-worker")
        engine = load_engine(settings)
        self._is_well = _is_well(engine, shared)
        services = open_services(settings)
        self._publish = partial(_publish_model, services, settings.bundle, engine)
        self._is_published = self._publish()
        self._jobs = services.jobs
        self._gate = Gate(services.store.ping, self.worker_stops)
        self._runner = JobRunner(
            services,
            engine,
            worker_stops=self.worker_stops,
            patience=Patience(settings.lease_seconds, settings.step_time_limit, settings.stop_grace),
            batch=BatchLimits(jobs=settings.batch_rows, rows=settings.batch_rows),
            shared=shared,
            on_fault=self._end_sick,
        )
        _log.info("engine.loaded", extra={"bundle": engine.name, "seconds": round(time.monotonic() - began, 2)})

    def worker_stops(self) -> bool:
        """Whether the worker is shutting down, or this process was told to."""
        return self._terminated or bool(self._shared.stopping.value)

    def handle(self, kind: JobKind, ref: str) -> None:
        """Do what is next, this job was the occasion; leave it to others when this worker is sick."""
        if not self._is_well or self._shared.rest_seconds:
            self._jobs.notify(kind, ref)
            while self._shared.rest_seconds and not self.worker_stops():
                time.sleep(0.1)
            if not self._is_well:
                os._exit(EXIT_SICK)  # the next process may find the device in order
            return
        if not self._gate.opens():
            self._jobs.notify(kind, ref)
            return
        self._is_published = self._is_published or self._publish()
        with self._deferring_sigterm():
            self._runner.handle(kind, ref)

    @property
    def is_well(self) -> bool:
        """Whether the device computed something when this process began."""
        return self._is_well

    def _end_sick(self, ref: str) -> None:
        """The engine failed for an unknown reason: its process may refuse everything from now on, and is ended."""
        self._shared.note_failure(ref)
        _log.error("child.ended_after_failure", extra={"quarantined": self._shared.is_quarantined})
        os._exit(EXIT_SICK)

    @contextlib.contextmanager
    def _deferring_sigterm(self) -> Iterator[None]:
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


def _publish_model(services: Services, bundle: str, engine: Engine) -> bool:
    """Let the API know what prompts and sizes the model takes. False: the store does not answer."""
    if engine.description is None:
        return True
    try:
        services.models.put(bundle, engine.description.to_json())
    except StoreUnavailable:
        _log.warning("worker.model_not_published", exc_info=True)
        return False
    return True


def _is_well(engine: Engine, shared: Shared) -> bool:
    """Whether the engine can compute; where it cannot, the worker is in quarantine."""
    try:
        engine.check()
    except Exception:  # noqa: BLE001 - whatever it is, jobs would end with it
        _log.exception("engine.self_test_failed")
        shared.note_failure(f"self-test {os.getpid()}", weight=QUARANTINE_FAILURES)
        return False
    return True


def start_child(settings: Settings, shared: Shared) -> Child | None:
    """The child, or None when its engine cannot be loaded: then the whole worker ends, and does not try for ever."""
    shared.begin()
    try:
        child = Child(settings, shared)
    except Exception as error:  # noqa: BLE001 - a library's own errors are no less final
        code, detail = (error.code, error.detail) if isinstance(error, HyperDreamBoothError) else ("error", str(error))
        is_ours = isinstance(error, HyperDreamBoothError)
        facts = {"code": code, "detail": f"The model cannot be loaded: {detail}", "bundle": settings.bundle}
        _log.error("engine.load_failed", extra=facts, exc_info=not is_ours)
        shared.load_failed.value = 1
        os.kill(os.getppid(), signal.SIGTERM)
        return None
    shared.loaded.value = child.is_well
    return child
