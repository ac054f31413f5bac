"""A local Redis for development and tests: a process of its own on loopback, started and stopped by its process id."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from core.errors import BrokerUnavailable
from core.queue.redis_server import find_redis_server


class LocalRedis:
    """A Redis server as a process of its own, on loopback: `with LocalRedis(folder) as redis: redis.url`.

    The data folder survives; starting again on it brings the data back, at the same address.
    """

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        """`port` 0 takes a free one, once: it stays the same over restarts of this object."""
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, *, timeout: float = 10.0) -> Self:
        """Start it, and wait until it answers. Raises BrokerUnavailable when it does not within `timeout` seconds."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        with log.open("ab") as output:
            # A session of its own: Ctrl-C must not end Redis before a worker has given its job back.
            self._process = subprocess.Popen(
                [find_redis_server(), *self._flags()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise BrokerUnavailable(f"Redis did not start; see {log}.")
            time.sleep(0.01)
        return self

    def stop(self, *, timeout: float = 10.0) -> None:
        """Shut it down with SIGTERM: it saves its data."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End it with SIGKILL: it saves nothing."""
        self._end(signal.SIGKILL, 10.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _flags(self) -> list[str]:
        flags = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in flags.items() for part in (f"--{name}", value)]

    def _answers(self) -> bool:
        client = Redis(port=self.port, socket_connect_timeout=1, socket_timeout=1)
        with contextlib.closing(client), contextlib.suppress(RedisError):
            info: dict[str, object] = client.info()
            # INFO is answered while saved data is loaded; everything else is refused until then.
            return info["process_id"] == self.pid and not info["loading"]
        return False

    def _end(self, how: signal.Signals, timeout: float) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
