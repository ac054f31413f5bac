"""A program as a process of its own: output in a log file, stopped by its id, found again when it was left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class ProcessFailed(Exception):
    """A process did not come up, or ended by itself."""

    def __init__(self, name: str, log: Path, reason: str) -> None:
        self.log = log
        super().__init__(f"{name} {reason}; the end of {log}:\n{_tail(log)}")


class Process:
    """A named program. It has a session of its own: Ctrl-C reaches its parent alone, which stops it in order."""

    def __init__(self, name: str, command: Sequence[str], *, environ: Mapping[str, str], log: Path) -> None:
        """`command` is a program and its arguments, `environ` its whole environment; output is appended to `log`."""
        self.name = name
        self.command = list(command)
        self.environ = dict(environ)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Its process id. Raises ProcessFailed when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise ProcessFailed(self.name, self.log, "is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it; its output goes to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                self.command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, is_up: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `is_up`. Raises ProcessFailed when the process ends, or `seconds` pass, before that."""
        until = time.monotonic() + seconds
        while not is_up():
            if self._process is None or self._process.poll() is not None:
                raise ProcessFailed(self.name, self.log, "ended")
            if time.monotonic() > until:
                raise ProcessFailed(self.name, self.log, f"was not up within {seconds:g} s")
            time.sleep(0.1)

    def has_logged(self, text: str) -> bool:
        """Whether it has logged `text` since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return text.encode() in log.read()

    def stop(self, *, seconds: float = 15.0) -> None:
        """Ask it to end; after `seconds` it and its children are killed."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """End it and its children at once, without a chance to clean up."""
        self._end(signal.SIGKILL, 0.0)

    def _end(self, how: signal.Signals, seconds: float) -> None:
        if self._process is None:
            return
        if self._process.poll() is None and how is not signal.SIGKILL:
            self._process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        # The session's id is the process id, so that this reaches children that outlived their parent.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def record(file: Path, pids: Sequence[int]) -> None:
    """Write down which processes are running, so that `end_leftovers` can find them when their parent was killed."""
    file.write_text(json.dumps({str(pid): _start_time(pid) for pid in pids}))


def end_leftovers(file: Path) -> list[int]:
    """End the recorded processes that still run; returns their ids. An id that another process has now is skipped."""
    if not file.is_file():
        return []
    recorded: dict[str, str | None] = json.loads(file.read_text())
    ended = [int(pid) for pid, started in recorded.items() if started is not None and _start_time(int(pid)) == started]
    for pid in ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 15.0
    while any(_start_time(pid) == recorded[str(pid)] for pid in ended) and time.monotonic() < until:
        time.sleep(0.1)
    file.unlink()
    return ended


def _start_time(pid: int) -> str | None:
    """When a process started (ticks since the machine did); None when it is gone, or where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name in brackets, which may contain anything
    return None if fields[0] == "Z" else fields[19]


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else "(empty)"
