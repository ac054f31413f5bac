"""What a worker shows of itself: metrics that outlive its child, and a heartbeat that outlives Redis."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from core.errors import SettingsError
from core.heartbeat import is_fresh
from core.metrics_server import serve_metrics
from core.records import JobState
from core.settings import Settings
from tests.worker.test_processes import Crew, crew
from worker.maintenance_thread import HeartbeatThread
from worker.metrics import registry_of_all

__all__ = ["crew"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.process
def test_metrics_outlive_the_child_and_the_heartbeat_an_outage(crew: Crew, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "heartbeat"
    worker = crew.start_worker(metrics_port=port, heartbeat_file=file)

    def read(name: str) -> float:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)

    stage = 'hdb_stage_seconds_count{kind="personalize",stage="total"}'
    crew.until(lambda: crew.services.workers.count() == (1, 1))
    assert crew.until_over(crew.personalize()).state is JobState.SUCCEEDED
    crew.until(lambda: read(stage) == 1)
    (child,) = [each for each in psutil.Process(worker.pid).children() if each.is_running()]
    child.send_signal(signal.SIGKILL)
    crew.until(lambda: len(crew.calls("loaded")) == 2)
    assert crew.until_over(crew.personalize()).state is JobState.SUCCEEDED
    crew.until(lambda: read(stage) == 2)
    assert read('hdb_device_memory_bytes{use="total"}') == 3
    assert read("process_resident_memory_bytes") > 1e6
    assert is_fresh(file)
    worker.terminate()
    worker.wait(20)
    assert crew.services.workers.count() == (0, 0)


@pytest.mark.process
def test_a_worker_is_healthy_without_redis(crew: Crew, tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    crew.options["redis_url"] = f"redis://127.0.0.1:{free_port()}/0"
    worker = crew.start_worker(heartbeat_file=file)
    crew.until(lambda: is_fresh(file))
    assert worker.poll() is None


def test_a_worker_that_hangs_does_not_beat(tmp_path: Path) -> None:
    sick, well = tmp_path / "sick", tmp_path / "well"
    threads = [HeartbeatThread(sick, lambda: False), HeartbeatThread(well, lambda: True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.stop()
    assert (is_fresh(sick), is_fresh(well)) == (False, True)


def test_a_port_that_is_taken_is_an_error_that_says_which() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}"):
            serve_metrics(Settings(metrics_port=port), registry_of_all())
