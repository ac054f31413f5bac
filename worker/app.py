"""The Celery application: `celery -A worker.app worker` (or `python -m worker`, which knows the right options).

Prefork with one child, since only a process can be killed when a step hangs. The parent imports no torch and touches no
device; it runs the reaper and tells the child to stop. The child loads the engine once, after the fork, and answers
bells. This module is an entry point, named on Celery's command line: therefore it reads the settings when imported.
"""

from __future__ import annotations

import logging
from multiprocessing.sharedctypes import RawValue

from billiard.util import get_logger
from celery import signals

from core.errors import BrokerUnavailable
from core.jobs.service import open_jobs
from core.log import configure_logging
from core.queue.notifications import TASKS, celery_app
from core.records import JobKind
from core.settings import load_settings
from worker.child import Child, start_child
from worker.maintenance import Maintenance
from worker.maintenance_thread import MaintenanceThread

_log = logging.getLogger(__name__)
settings = load_settings()
app = celery_app(settings)

_stopping = RawValue("b", 0)
"""Shared with the child. No lock (an Event has one): a child that is killed holding it would block the parent."""
_child: list[Child] = []
_reaper: list[MaintenanceThread] = []


@app.task(name=TASKS["personalize"][0])
def personalize(ref: str) -> None:
    """The bell of a personalising job."""
    _answer(JobKind.PERSONALIZE, ref)


@app.task(name=TASKS["generate"][0])
def generate(ref: str) -> None:
    """The bell of a generating job."""
    _answer(JobKind.GENERATE, ref)


def _answer(kind: JobKind, ref: str) -> None:
    try:
        for child in _child:
            child.answer(kind, ref)
    except BrokerUnavailable:
        _log.warning("notification.not_handled", extra={"ref": ref})  # the reaper rings again


@signals.setup_logging.connect
def _set_up_logging(**_: object) -> None:
    configure_logging(settings.log_level)
    get_logger().propagate = True  # the pool's own logger, which would print its bare lines otherwise


@signals.worker_process_init.connect
def _start_child(**_: object) -> None:
    child = start_child(settings, lambda: bool(_stopping.value))
    if child:
        _child.append(child)


@signals.worker_ready.connect
def _start_reaper(**_: object) -> None:
    if not _reaper:  # Celery is ready again after each lost connection
        erase_seconds = settings.job_time_limit + 60.0
        reaper = Maintenance(
            open_jobs(settings),
            reap_seconds=settings.reap_seconds,
            reconcile_seconds=settings.reconcile_seconds,
            erase_seconds=erase_seconds,
            batch_window=settings.batch_window,
            batch_kept_days=settings.batch_kept_days,
        )
        _reaper.append(MaintenanceThread(reaper))
        _reaper[0].start()
    _log.info("worker.ready")


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    _stopping.value = 1


@signals.worker_shutdown.connect
def _stop_reaper(**_: object) -> None:
    for reaper in _reaper:
        reaper.stop()
