from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

import worker.maintenance_thread
from core.errors import BrokerUnavailable
from core.jobs.claims import Work
from core.records import JobKind
from worker.maintenance import Maintenance
from worker.maintenance_thread import MaintenanceThread

if TYPE_CHECKING:
    from tests.worker.conftest import Shop


class Eventful(Maintenance):
    """A reaper whose first looks around go wrong."""

    troubles = (BrokerUnavailable(), RuntimeError("a mistake"))
    looks = 0

    def tick(self) -> None:
        self.looks += 1
        if self.looks <= len(self.troubles):
            raise self.troubles[self.looks - 1]
        super().tick()


def test_the_thread_goes_on_whatever_happens(shop: Shop) -> None:
    _, job = shop.new_subject()
    Work(shop.jobs).claim(JobKind.PERSONALIZE, job.ref)
    shop.ledger.redis.zadd("hdb:running", {job.ref: 1})
    shop.notifier.notified.clear()
    thread = MaintenanceThread(Eventful(shop.jobs, reap_seconds=0.01))
    thread.start()
    deadline = time.monotonic() + 30
    while not shop.notifier.notified and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop()
    assert shop.notifier.notified == [("personalize", job.ref)]
    assert not thread.is_alive()


@pytest.mark.process
def test_a_fork_waits_for_the_end_of_a_look_around() -> None:
    looking = threading.Event()
    ended: list[float] = []

    def look() -> None:
        with worker.maintenance_thread._looking:
            looking.set()
            time.sleep(0.2)
            ended.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if ended and worker.maintenance_thread._looking.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
