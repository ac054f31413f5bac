from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

import worker.maintenance_thread
from core.errors import BrokerUnavailable
from core.records import JobKind
from worker.maintenance import Maintenance
from worker.maintenance_thread import MaintenanceThread

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness


class Eventful(Maintenance):
    """Maintenance whose first passes go wrong."""

    troubles = (BrokerUnavailable(), RuntimeError("a mistake"))
    passes = 0

    def tick(self) -> None:
        self.passes += 1
        if self.passes <= len(self.troubles):
            raise self.troubles[self.passes - 1]
        super().tick()


def test_the_thread_goes_on_whatever_happens(worker: WorkerHarness) -> None:
    _, job = worker.new_subject()
    worker.claims.claim(JobKind.PERSONALIZE, job.ref)
    worker.ledger.redis.zadd("hdb:running", {job.ref: 1})
    worker.notifier.notified.clear()
    thread = MaintenanceThread(Eventful(worker.services, reap_seconds=0.01))
    thread.start()
    deadline = time.monotonic() + 30
    while not worker.notifier.notified and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop()
    assert worker.notifier.notified == [("personalize", job.ref)]
    assert not thread.is_alive()


@pytest.mark.process
def test_a_fork_waits_for_the_end_of_a_pass() -> None:
    ticking = threading.Event()
    ended: list[float] = []

    def tick() -> None:
        with worker.maintenance_thread.FORKS_WAIT:
            ticking.set()
            time.sleep(0.2)
            ended.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    ticking.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if ended and worker.maintenance_thread.FORKS_WAIT.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
