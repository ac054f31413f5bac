"""The whole service in processes of its own, and all that can happen to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from core.queue.local_redis import LocalRedis, free_port
from core.services import open_services
from core.settings import load_settings
from tests.faults.proxy import Proxy

QUICK = {
    "engine": "tests.faults.engine:FaultyEngine",
    "lease_seconds": "10",
    "reap_seconds": "0.5",
    "reconcile_seconds": "2",
    "notify_again_seconds": "3",
    "queue_limit": "5000",
    "requests_per_minute": "0",
    "pictures_per_hour": "0",
    "webhooks_allow_private": "true",
}


class FaultyService:
    """The service with its faults; each method named `fault_...` is one, and returns when it is over."""

    def __init__(
        self, folder: Path, seed: int, *, without: str = "", workers: int = 2, length: float = 1.0, front: bool = True
    ) -> None:
        """Faults last `length` times as long as they would. Without a `front` there are workers only."""
        self.random = random.Random(seed)
        self.folder = folder
        self.length = length
        self.redis = LocalRedis(folder / "redis").start()
        self.proxy = Proxy(self.redis.port)
        self.url = f"http://127.0.0.1:{free_port()}"
        options = {"data_dir": str(folder), "api_port": self.url.rpartition(":")[2], **QUICK}
        options["step_time_limit"] = str(max(8.0, 20.0 * length))
        if without == "recovery":
            options |= {"reap_seconds": "3600", "reconcile_seconds": "3600"}
        (folder / "without").write_text(without)
        far = options | {"redis_url": f"redis://127.0.0.1:{self.proxy.port}/0"}
        self.environ = {**os.environ, **{f"HDB_{name.upper()}": value for name, value in far.items()}}
        self.services = open_services(load_settings(**options, redis_url=self.redis.url))
        self.log = (folder / "processes.log").open("ab")
        self._groups: list[int] = []
        self.workers = [self._start("worker") for _ in range(workers)]
        self.others = {module: self._start(module) for module in ("api", "core.webhooks") if front}

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        name = [f"--hostname=w{time.monotonic_ns()}"] if module == "worker" else []
        line = [sys.executable, "-m", "tests.faults.broken", module, *name]
        process = subprocess.Popen(line, env=self.environ, stdout=self.log, stderr=self.log, start_new_session=True)
        self._groups.append(process.pid)
        return process

    def replace_ended(self) -> None:
        """As an orchestrator does."""
        self.workers = [self._start("worker") if each.poll() is not None else each for each in self.workers]
        for module, process in self.others.items():
            if process.poll() is not None:
                self.others[module] = self._start(module)

    def child(self) -> psutil.Process | None:
        """A process that owns a device; None while the chosen worker has none."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return next(iter(psutil.Process(self.random.choice(self.workers).pid).children()), None)
        return None

    def set_faults(self, **faults: str) -> None:
        """What is broken now, in every process."""
        file = self.folder / "faults.part"
        file.write_text(json.dumps(faults))
        file.rename(self.folder / "faults.json")

    def some_time(self, least: float, most: float) -> None:
        """Let so many seconds pass."""
        time.sleep(self.random.uniform(least, most) * self.length)

    def fault_child_killed(self) -> None:
        if child := self.child():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def fault_child_frozen(self) -> None:
        if child := self.child():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.suspend()

    def fault_worker_killed(self) -> None:
        """With its child, as a container is."""
        worker = self.random.choice(self.workers)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def fault_parent_killed(self) -> None:
        worker = self.random.choice(self.workers)
        worker.kill()
        worker.wait()

    def fault_parent_frozen(self) -> None:
        worker = self.random.choice(self.workers)
        self._frozen(worker.send_signal, 1, 9)

    def fault_machine_frozen(self) -> None:
        """Near the end of a job, for longer than its lease: another worker takes it, and this one comes back."""
        holder = self.folder / "holder"
        holder.unlink(missing_ok=True)
        self.set_faults(engine="slow")
        self.some_time(4.5, 5.5)
        if holder.exists():
            group = int(holder.read_text())
            with contextlib.suppress(ProcessLookupError):
                self._frozen(lambda number: os.killpg(group, number), 11, 17)
            self.some_time(2, 3)
        self.set_faults()

    def fault_api_killed(self) -> None:
        self.others["api"].kill()
        self.others["api"].wait()

    def fault_api_frozen(self) -> None:
        self._frozen(self.others["api"].send_signal, 1, 6)

    def fault_dispatcher_killed(self) -> None:
        self.others["core.webhooks"].kill()
        self.others["core.webhooks"].wait()

    def fault_connections_half_open(self) -> None:
        self.proxy.half_open()

    def fault_connections_frozen(self) -> None:
        self.proxy.freeze()
        self.some_time(1, 8)
        self.proxy.thaw()

    def fault_redis_killed(self) -> None:
        self.redis.kill()
        self.some_time(0.2, 8)
        self.redis.start()

    def fault_redis_rolled_back(self) -> None:
        """It comes back with what it knew some seconds ago, as from a replica that was behind."""
        before = self.folder / "redis-before"
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(self.redis.folder, before)
        self.some_time(1, 8)
        self.redis.kill()
        shutil.rmtree(self.redis.folder)
        before.rename(self.redis.folder)
        self.redis.start()

    def fault_redis_read_only(self) -> None:
        self._configured("replicaof", "127.0.0.1", "9")

    def fault_redis_full(self) -> None:
        self._configured("config", "set", "maxmemory", "1")

    def fault_redis_emptied(self) -> None:
        with contextlib.suppress(Exception):
            self.services.redis.flushall()

    def fault_store(self) -> None:
        self._faulty(1, 8, store=self.random.choice(["full", "read-only", "failing", "slow"]))

    def fault_store_frozen(self) -> None:
        self._faulty(1, 8, store="frozen")

    def fault_lock_held(self) -> None:
        self._faulty(1, 2, engine="holds")

    def fault_memory(self) -> None:
        self._faulty(0.2, 2, engine="memory")

    def fault_sick(self) -> None:
        self.set_faults(engine="sick")
        time.sleep(0.2)
        self.set_faults()

    def _faulty(self, least: float, most: float, **faults: str) -> None:
        """The store or the engine fails in this way for a time between the two, in seconds."""
        self.set_faults(**faults)
        self.some_time(least, most)
        self.set_faults()

    def _frozen(self, signal_all: Callable[[int], None], least: float, most: float) -> None:
        signal_all(signal.SIGSTOP)
        self.some_time(least, most)
        signal_all(signal.SIGCONT)

    def _configured(self, *command: str) -> None:
        redis = self.services.redis
        with contextlib.suppress(Exception):
            redis.execute_command(*command)
            self.some_time(0.5, 6)
        while True:
            with contextlib.suppress(Exception):
                redis.execute_command("REPLICAOF", "NO", "ONE")
                redis.execute_command("CONFIG", "SET", "maxmemory", "0")
                return
            time.sleep(0.2)

    def end(self) -> None:
        """Nothing is left running."""
        for group in self._groups:  # also those whose leader was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for process in [*self.workers, *self.others.values()]:
            process.wait()
        self.services.redis.close()
        self.redis.stop()
        self.proxy.stop()
        self.log.close()


FAULTS = sorted(name.removeprefix("fault_") for name in vars(FaultyService) if name.startswith("fault_"))
"""The names of all faults."""
