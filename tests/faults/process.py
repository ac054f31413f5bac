"""A process that dies, or loses something, at a certain one of its writes, to the store and to Redis."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from redis import Redis

from core.errors import BrokerUnavailable, StoreUnavailable
from core.jobs.ledger import script
from core.storage import Store

_READS = {
    "GET",
    "HGETALL",
    "HMGET",
    "ZRANK",
    "ZCARD",
    "ZRANGE",
    "ZSCORE",
    "SCARD",
    "EXISTS",
    "PING",
    "INFO",
    "SCRIPT LOAD",
}
_READING_SCRIPTS = {hashlib.sha1(script("read").encode(), usedforsecurity=False).hexdigest()}


class Death(BaseException):
    """The process is gone: nothing that it does from here on has an effect."""


class Fault(StrEnum):
    """What happens at the write."""

    DIES = "the process dies"
    DIES_AND_REDIS_IS_EMPTIED = "the process dies, and Redis comes back empty"
    REDIS_IS_EMPTIED = "Redis is emptied, and the process goes on"
    KILLED = "the process is killed by signal 9: for one that is no test"
    REFUSED = "the store, or Redis, refuses this one write"


class Process:
    """Counts its writes, and has a fault at one of them (0 is the first; None: at none)."""

    def __init__(self, redis: Redis, fault: Fault = Fault.DIES, at: int | None = None) -> None:
        self._redis, self._fault, self._at = redis, fault, at
        self._lock = threading.Lock()
        self.writes: list[str] = []
        self.is_dead = False
        self.is_faulty = False

    def write(self, what: str) -> None:
        """A write is about to be made. Raises Death, StoreUnavailable, BrokerUnavailable."""
        with self._lock:
            if self.is_dead:
                raise Death
            self.writes.append(what)
            if len(self.writes) - 1 != self._at:
                return
            self.is_faulty = True
            self.is_dead = self._fault in (Fault.DIES, Fault.DIES_AND_REDIS_IS_EMPTIED)
        if self._fault is Fault.KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault in (Fault.DIES_AND_REDIS_IS_EMPTIED, Fault.REDIS_IS_EMPTIED):
            self._redis.flushall()
        if self.is_dead:
            raise Death
        if self._fault is Fault.REFUSED:
            raise StoreUnavailable if what.startswith("store") else BrokerUnavailable


class ProcessStore:
    """A store as one process sees it. A prefix is deleted key by key, as a folder and some servers do it."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store, self._process = store, process

    def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
        self._process.write(f"store put {key}")
        self._store.put(key, data, content_type=content_type)

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return self._store.list(prefix, after=after)

    def delete(self, key: str) -> None:
        self._process.write(f"store delete {key}")
        self._store.delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        for key in [key for key in keys if self._store.exists(key)]:
            self.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        for key in list(self._store.list(prefix)):
            self.delete(key)

    def ping(self) -> None:
        self._store.ping()


class ProcessRedis(Redis):
    """A connection to Redis as one process has it."""

    process: Process

    def execute_command(self, *args: Any, **options: Any) -> Any:
        is_read = args[0] in _READS or (args[0] == "EVALSHA" and args[1] in _READING_SCRIPTS)
        if not is_read:
            self.process.write(f"redis {args[0]}")
        return super().execute_command(*args, **options)


class ProcessNotifier:
    """Messages to the workers are writes to Redis, too; no worker gets them here."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def notify(self, kind: str, ref: str) -> None:
        self._process.write(f"redis notify {kind} {ref}")


class Clock:
    """A clock that can be put forward; it stands in for `time.time`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self.ahead = now, 0.0

    def __call__(self) -> float:
        return self._now() + self.ahead
