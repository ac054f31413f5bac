"""The whole service on this machine: Redis, the API, a worker and the dispatcher, each a process, in one data folder.

python -m deploy.local               serve until Ctrl-C (`make run`)
python -m deploy.local redis         only Redis, in the foreground, on its usual port (for the Procfile)
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn, Self
from urllib.error import URLError
from urllib.request import urlopen

from core.errors import HyperDreamBoothError
from core.queue.local_redis import LocalRedis, free_port
from core.settings import LOCAL_DATA
from deploy.first_steps import greet
from deploy.process import Process, ProcessFailed, end_leftovers, record

ROOT = Path(__file__).resolve().parent.parent
MODEL_LOADED = '"event": "engine.loaded"'
"""What the worker logs when it is ready."""
UP_SECONDS = 120.0
"""How long the API may take to answer."""
LOADED_SECONDS = 600.0
"""How long the worker may take to load its model, which may have to be downloaded first."""


class FolderInUse(Exception):
    """Another service is running on the same data folder."""


class LocalService:
    """`with LocalService(folder) as service: service.url`. The folder keeps the data; nothing outlives the block."""

    def __init__(self, folder: Path, *, port: int = 0, environ: Mapping[str, str] | None = None) -> None:
        """`port` 0 takes a free one. `environ` adds to this process's environment, for settings (`HDB_*`)."""
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.redis = LocalRedis(self.folder / "redis")
        settings = {
            "HDB_REDIS_URL": self.redis.url,
            "HDB_DATA_DIR": str(self.folder),
            "HDB_API_HOST": "127.0.0.1",
            "HDB_API_PORT": str(self.port),
        }
        environ = {**os.environ, **(environ or {}), **settings}
        logs, python = self.folder / "logs", sys.executable
        self.api = Process("the API", [python, "-m", "api"], environ=environ, log=logs / "api.log")
        self.worker = Process("the worker", [python, "-m", "worker"], environ=environ, log=logs / "worker.log")
        self.dispatcher = Process(
            "the dispatcher", [python, "-m", "core.webhooks"], environ=environ, log=logs / "dispatcher.log"
        )
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Where the API listens: this machine only."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start them all and wait until they are ready to work.

        Raises:
            FolderInUse: another service runs on this folder, or something else listens on the port.
            ProcessFailed: one of them did not come up; has the end of its log.
            BrokerUnavailable: Redis did not start.
        """
        self._take_folder()
        try:
            if not _is_free(self.port):
                raise FolderInUse(f"Something else listens on port {self.port}; choose another one.")
            self.redis.start()
            self.api.start()
            self.worker.start()
            self.dispatcher.start()
            self._record()
            self.api.wait_until(lambda: _answers(f"{self.url}/readyz?exclude=workers"), seconds=UP_SECONDS)
            self.wait_for_worker()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for_worker(self) -> None:
        """Wait until the worker has loaded its model and the API knows of it. Raises ProcessFailed."""
        self.worker.wait_until(
            lambda: self.worker.has_logged(MODEL_LOADED) and _answers(f"{self.url}/readyz"), seconds=LOADED_SECONDS
        )

    def restart_worker(self) -> None:
        """Start the worker again after it was stopped or killed; waits until it is ready. Raises ProcessFailed."""
        self.worker.start()
        self._record()
        self.wait_for_worker()

    def stop(self) -> None:
        """Stop them all, those that depend on others first."""
        self.api.stop()
        self.worker.stop()
        self.dispatcher.stop()
        self.redis.stop()
        if self._lock:
            self._pids.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _pids(self) -> Path:
        return self.folder / "pids.json"

    def _take_folder(self) -> None:
        """One service a folder: two Redis servers would corrupt its append-only file."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise FolderInUse(f"The service is running already, on {self.folder}.") from None
        end_leftovers(self._pids)

    def _record(self) -> None:
        record(self._pids, [pid for pid in (self.api.pid, self.worker.pid, self.dispatcher.pid, self.redis.pid) if pid])


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP (a terminal that is closed) end the block as Ctrl-C does, so that nothing is left running."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(logs: Mapping[str, Path], stop: threading.Event) -> None:
    """Print what is added to the logs from now on, each line with its log's name, until `stop` is set."""
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(log.open(errors="replace")) for name, log in logs.items()}
        for file in files.values():
            file.seek(0, os.SEEK_END)
        while not stop.wait(0.2):
            for name, file in files.items():
                for line in file:
                    print(f"{name:<7}| {line.rstrip()}", flush=True)


def serve(folder: Path, port: int) -> int:
    """Serve until Ctrl-C, or until a process ends. The exit status is for the shell."""
    print("starting Redis, the API, a worker and the dispatcher ...", flush=True)
    try:
        with stopped_by_signals(), LocalService(folder, port=port) as service:
            greet(service.url, service.folder)
            stop = threading.Event()
            logs = {"api": service.api.log, "worker": service.worker.log, "dispatcher": service.dispatcher.log}
            watching = threading.Thread(target=follow, args=(logs, stop), daemon=True)
            watching.start()
            try:
                while service.api.pid and service.worker.pid and service.dispatcher.pid:
                    time.sleep(0.5)
            finally:
                stop.set()
                print("stopping ...", flush=True)
    except KeyboardInterrupt:
        return 0
    except (FolderInUse, ProcessFailed, HyperDreamBoothError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line and its defaults."""
    parser = argparse.ArgumentParser(prog="deploy.local", description="The whole service on this machine.")
    parser.add_argument("what", nargs="?", choices=["all", "redis"], default="all")
    parser.add_argument("--port", type=int, default=8000, help="the API's port (8000)")
    parser.add_argument("--folder", type=Path, default=LOCAL_DATA, help="where the data is kept")
    return parser


def main() -> int:
    """Serve what the command line says; the exit status is for the shell."""
    args = parser().parse_args()
    return serve(args.folder, args.port) if args.what == "all" else _serve_redis(args.folder)


def _serve_redis(folder: Path) -> int:
    with contextlib.suppress(KeyboardInterrupt), stopped_by_signals(), LocalRedis(folder / "redis", port=6379) as redis:
        print(f"Redis is at {redis.url}", flush=True)
        signal.pause()
    return 0


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310  (our own loopback address)
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
