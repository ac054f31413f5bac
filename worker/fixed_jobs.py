"""The jobs of test keys, done by a thread of the worker's parent process: it needs no model, loaded or not.

They go the way of all jobs (claim, lease, events, commit, webhooks), from a queue of their own. As the maintenance's,
this thread's passes and the forks of the pool wait for each other.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from core.errors import BrokerUnavailable
from core.services import Services
from core.settings import Settings
from worker.fixed_engine import FixedEngine
from worker.lease import Patience
from worker.maintenance_thread import FORKS_WAIT
from worker.runner import BatchLimits, JobRunner

IDLE_SECONDS = 0.25
"""So long a job waits at most when no other does."""
_OUTAGE_SECONDS = 2.0
_log = logging.getLogger(__name__)


def fixed_runner(services: Services, settings: Settings) -> JobRunner:
    """What does the jobs of test keys, one at a time: `handle_test()`. They are not in the metrics."""
    patience = replace(Patience(), lease=settings.lease_seconds)
    return JobRunner(
        services,
        FixedEngine(settings),
        worker_stops=lambda: False,  # what it has begun it ends sooner than a worker has to stop
        patience=patience,
        batch=BatchLimits(jobs=1),
        measured=False,
    )


class FixedJobsThread(threading.Thread):
    """Does the jobs of test keys until it is stopped. No error ends it before."""

    def __init__(self, runner: JobRunner) -> None:
        super().__init__(name="test keys", daemon=True)
        self._runner = runner
        self._over = threading.Event()

    def run(self) -> None:
        """See Thread."""
        pause = 0.0
        while not self._over.wait(pause):
            with FORKS_WAIT:
                pause = self._pass()

    def stop(self) -> None:
        """End it, after the job that is going on."""
        self._over.set()
        self.join()

    def _pass(self) -> float:
        """Do a job, if there is one. Returns the seconds until the next is to be looked for."""
        try:
            return 0.0 if self._runner.handle_test() else IDLE_SECONDS
        except BrokerUnavailable:
            return _OUTAGE_SECONDS
        except Exception:  # noqa: BLE001 - what goes wrong now may go right in two seconds
            _log.exception("test_keys.crashed")
            return _OUTAGE_SECONDS
