"""Programs as processes of their own."""

import os
import sys
import time
from pathlib import Path

import pytest

from deploy.process import Process, ProcessFailed, end_leftovers, record

SLEEPS = (sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)")
IGNORES_SIGTERM = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
)


def process(command: tuple[str, ...], folder: Path) -> Process:
    return Process("sleeper", command, environ=os.environ, log=folder / "log" / "sleeper.log")


def started(command: tuple[str, ...], folder: Path) -> Process:
    sleeper = process(command, folder)
    sleeper.start()
    sleeper.wait_until(lambda: "up" in sleeper.log.read_text(), seconds=30)
    return sleeper


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_process_is_started_and_stopped_by_its_id(tmp_path: Path) -> None:
    sleeper = started(SLEEPS, tmp_path)
    pid = sleeper.pid
    assert is_running(pid)
    sleeper.stop()
    assert not is_running(pid)
    with pytest.raises(ProcessFailed, match="is not running"):
        assert sleeper.pid


def test_stopping_twice_or_before_the_start_does_nothing(tmp_path: Path) -> None:
    sleeper = process(SLEEPS, tmp_path)
    sleeper.stop()
    sleeper.start()
    sleeper.stop()
    sleeper.stop()


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    sleeper = started(IGNORES_SIGTERM, tmp_path)
    pid = sleeper.pid
    sleeper.stop(seconds=0.2)
    assert not is_running(pid)


def test_one_that_ends_too_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = process((sys.executable, "-c", "raise SystemExit('the port is taken')"), tmp_path)
    broken.start()
    with pytest.raises(ProcessFailed, match=r"(?s)sleeper ended.*the port is taken"):
        broken.wait_until(lambda: False, seconds=30)


def test_one_that_is_too_slow_fails(tmp_path: Path) -> None:
    sleeper = started(SLEEPS, tmp_path)
    with pytest.raises(ProcessFailed, match=r"was not up within 0\.2 s"):
        sleeper.wait_until(lambda: False, seconds=0.2)
    sleeper.kill()


def test_what_a_killed_parent_left_behind_is_ended(tmp_path: Path) -> None:
    sleeper = started(SLEEPS, tmp_path)
    record(tmp_path / "pids.json", [sleeper.pid])
    pid = sleeper.pid
    assert end_leftovers(tmp_path / "pids.json") == [pid]
    assert not is_running(pid)
    assert end_leftovers(tmp_path / "pids.json") == []
    sleeper.stop()


def test_a_process_id_that_another_process_has_now_is_let_alone(tmp_path: Path) -> None:
    sleeper = started(SLEEPS, tmp_path)
    (tmp_path / "pids.json").write_text(f'{{"{sleeper.pid}": "1"}}')
    assert end_leftovers(tmp_path / "pids.json") == []
    time.sleep(0.1)
    assert is_running(sleeper.pid)
    sleeper.stop()
