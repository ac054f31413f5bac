"""The Celery application: `celery -A worker.app worker` (or `python -m worker`, which knows the right options).

Prefork with one child, since only a process can be killed when a step hangs. The parent imports no torch and touches no
device; it runs the maintenance and tells the child to stop. The child loads the engine once, after the fork, and does
the jobs. This module is an entry point, named on Celery's command line: therefore it reads the settings when imported.
"""

from __future__ import annotations

import logging
import os
import socket

from billiard.util import get_logger
from celery import signals

from core.errors import BrokerUnavailable
from core.log import configure_logging
from core.metrics_server import serve_metrics
from core.queue.notifications import TASKS, celery_app
from core.records import JobKind
from core.services import open_services
from core.settings import load_settings
from worker.child import Child, start_child
from worker.child_watch import ChildWatch
from worker.fixed_jobs import FixedJobsThread, fixed_runner
from worker.maintenance import Maintenance
from worker.maintenance_thread import HeartbeatThread, MaintenanceThread
from worker.metrics import registry_of_all
from worker.shared import Shared

FROZEN_SECONDS = 60.0
"""A child whose threads did not run for so long is ended; or for as long as a step may take, where that is less."""
_log = logging.getLogger(__name__)
settings = load_settings()
app = celery_app(settings)

shared = Shared()
_child: list[Child] = []
_watch: list[ChildWatch] = []
_maintenance: list[MaintenanceThread] = []
_test_jobs: list[FixedJobsThread] = []
_heartbeat: list[HeartbeatThread] = []


@app.task(name=TASKS["personalize"])
def personalize(ref: str) -> None:
    """There is work; a personalizing job was the occasion."""
    _handle(JobKind.PERSONALIZE, ref)


@app.task(name=TASKS["generate"])
def generate(ref: str) -> None:
    """There is work; a generating job was the occasion."""
    _handle(JobKind.GENERATE, ref)


def _handle(kind: JobKind, ref: str) -> None:
    try:
        for child in _child:
            child.handle(kind, ref)
    except BrokerUnavailable:
        _log.warning("notification.not_handled", extra={"ref": ref})  # the maintenance notifies again


@signals.setup_logging.connect
def _set_up_logging(**_: object) -> None:
    configure_logging(settings.log_level)
    get_logger().propagate = True  # the pool's own logger, which would print its bare lines otherwise


@signals.worker_process_init.connect
def _start_child(**_: object) -> None:
    child = start_child(settings, shared)
    if child:
        _child.append(child)


@signals.worker_init.connect
def _show_health(**_: object) -> None:
    """From the first moment on: an outage of Redis, or a model that loads for long, is no reason to restart."""
    serve_metrics(settings, registry_of_all())
    if settings.heartbeat_file:
        _heartbeat.append(HeartbeatThread(settings.heartbeat_file, lambda: not any(t.hangs for t in _maintenance)))
        _heartbeat[0].start()


@signals.worker_ready.connect
def _start_maintenance(**_: object) -> None:
    if not _maintenance:  # Celery is ready again after each lost connection
        maintenance = Maintenance(
            open_services(settings),
            reap_seconds=settings.reap_seconds,
            reconcile_seconds=settings.reconcile_seconds,
            erase_seconds=settings.job_time_limit + 60.0,
            batch_window=settings.batch_window,
            batch_kept_days=settings.batch_kept_days,
        )
        name, frozen = f"{socket.gethostname()}:{os.getpid()}", min(settings.step_time_limit, FROZEN_SECONDS)
        _watch.append(ChildWatch(shared, open_services(settings), name, lease=settings.lease_seconds, frozen=frozen))
        _watch[0].start()
        _maintenance.append(MaintenanceThread(maintenance))
        _maintenance[0].start()
        _test_jobs.append(FixedJobsThread(fixed_runner(open_services(settings), settings)))
        _test_jobs[0].start()
    _log.info("worker.ready")


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    shared.stopping.value = 1


@signals.worker_shutdown.connect
def _stop_maintenance(**_: object) -> None:
    for heartbeat in _heartbeat:
        heartbeat.stop()
    for watch in _watch:
        watch.stop()
    for thread in _test_jobs:
        thread.stop()
    for maintenance in _maintenance:
        maintenance.stop()
