"""The worker, with everything around the method: jobs that wait, a personalization meanwhile, a busy neighbour."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.jobs.ledger import Ledger, Limits
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import Consent, GenerateRequest, Job, JobKind, JobState
from core.services import make_services
from core.settings import Settings
from core.testing import MemoryNotifier, MemoryStore
from tests.bench.engine.method import face
from tests.bench.engine.timing import Line, interleaved, line, ratios
from worker.diffusion_engine import DiffusionEngine
from worker.engine import Engine, Row
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner

_BUSY = "while True: sum(range(100000))"


class Bench:
    """A worker in this process, over a Redis of its own and a store in memory."""

    def __init__(
        self, redis: LocalRedis, folder: Path, make: Callable[[Settings], Engine], *, steps: int | None
    ) -> None:
        """`steps`: of finetuning; None takes the bundle's."""
        settings = Settings(redis_url=redis.url, data_dir=folder, device="cpu", threads=torch.get_num_threads())
        limits = Limits(queue_limit=10_000)
        self.services = make_services(MemoryStore(), Ledger(connect(settings), limits), MemoryNotifier())
        self.engine = make(settings)
        self._runner = JobRunner(
            self.services, self.engine, worker_stops=lambda: False, patience=Patience(), batch=BatchLimits()
        )
        self._steps = steps
        self._photo = _png(face(128)[0].numpy())

    def ask_for_a_person(self) -> Job:
        """A subject of the demo's photo: its job."""
        consent = Consent(at=time.time(), version="1")
        options = {} if self._steps is None else {"steps": self._steps}
        return self.services.subjects.create("local", [self._photo], consent=consent, **options)[1]  # type: ignore[arg-type]

    def ask_for_a_picture(self, subject_id: str, seed: int, steps: int | None) -> Job:
        """A picture of a subject that is ready: its job."""
        request = GenerateRequest(subject_id=subject_id, prompt="a [V] face", seed=seed, steps=steps)
        return self.services.subjects.generate("local", request)

    def work(self) -> None:
        """Do everything that waits."""
        while self._runner.handle(JobKind.GENERATE, ""):
            pass

    def seconds_of(self, job: Job) -> float:
        """From being asked for until its end."""
        ended = self.services.jobs.get("local", job.id)
        if ended.state is not JobState.SUCCEEDED:
            raise RuntimeError(f"job {job.id} is {ended.state}")
        assert ended.finished_at is not None
        return ended.finished_at - ended.created_at


@contextmanager
def bench(make: Callable[[Settings], Engine] = DiffusionEngine, *, steps: int | None = None) -> Iterator[Bench]:
    """A worker that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="hdb-bench-") as folder, LocalRedis(Path(folder)) as redis:
        yield Bench(redis, Path(folder), make, steps=steps)


def everything(held: Bench, rounds: int, *, people: int, waiting: tuple[int, ...]) -> tuple[list[Line], dict[str, Any]]:
    """All figures of a worker, and the table of requests that wait."""
    first, subject_id = personalizing(held, people)
    second, table = one_and_many(held, subject_id, rounds, waiting)
    return first + second + beside_a_neighbour(held, subject_id, rounds), {"waiting": table}


def one_and_many(
    held: Bench, subject_id: str, rounds: int, counts: tuple[int, ...]
) -> tuple[list[Line], list[dict[str, float]]]:
    """One picture, one of eight; then requests that wait, with throughput and latency, over the engine's own rate."""
    alone, eight = [], []
    for number in range(rounds):
        alone += _all(held, subject_id, 1, number)[0]
        eight.append(_all(held, subject_id, 8, number)[1] / 8)
    lines = [
        line("one picture alone, the whole job", "s", alone, target=0.5),
        line("one picture, eight waiting", "s", eight, target=0.2),
    ]
    weights = held.services.subjects.weights("local", subject_id)
    rows = [Row("a [V] face", "", weights, seed, None) for seed in range(16)]
    quick: dict[str, Any] = {
        "steps": 4,
        "height": None,
        "width": None,
        "on_progress": lambda *_: None,
        "should_stop": lambda: False,
    }
    waiting = []
    for count in counts:
        own = min(count, 16)
        seconds = interleaved({"own": lambda own=own: held.engine.generate(rows[:own], **quick)}, 1)["own"][0]  # type: ignore[misc]
        each, whole = _all(held, subject_id, count, 0, steps=4)
        rate, ideal = count / whole, own / seconds
        row = {"waiting": count, "rate": rate, "own_rate": ideal, "mean": float(np.mean(each)), "last": max(each)}
        waiting.append({name: round(value, 3) for name, value in row.items()})
    share = waiting[-1]["rate"] / waiting[-1]["own_rate"]
    lines.append(line(f"{counts[-1]} waiting: rate / the engine's own", "x", [share], target=0.95, more=True))
    return lines, waiting


def personalizing(held: Bench, waiting: int) -> tuple[list[Line], str]:
    """People an hour; how long a prompt waits that comes during a personalization. Returns a ready subject."""
    first = held.ask_for_a_person()
    held.work()
    (subject_id,) = first.subject_ids
    jobs = [held.ask_for_a_person() for _ in range(waiting)]
    began = time.monotonic()
    held.work()
    whole = time.monotonic() - began
    for job in jobs:
        held.seconds_of(job)
    alone = _all(held, subject_id, 1, 0)[0][0]
    slowed, prompts = held.ask_for_a_person(), list[Job]()

    def ask() -> None:
        while (now := held.services.jobs.get("local", slowed.id)).stage != "finetune" and not now.finished_at:
            time.sleep(0.05)
        prompts.append(held.ask_for_a_picture(subject_id, 0, None))

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    held.work()
    asker.join()
    held.work()
    lines = [
        line("personalizing a person, the whole job", "s", [whole / waiting], target=8),
        line(f"people an hour, {waiting} waiting", "", [3600 * waiting / whole], target=302, more=True),
        line("a prompt during a personalization / alone", "x", [held.seconds_of(prompts[0]) / alone], target=1.5),
    ]
    return lines, subject_id


def beside_a_neighbour(held: Bench, subject_id: str, rounds: int) -> list[Line]:
    """One picture beside a process that never rests over one without it."""
    neighbour = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:

        def draw(*, beside: bool) -> None:
            os.kill(neighbour.pid, signal.SIGCONT if beside else signal.SIGSTOP)
            _all(held, subject_id, 1, 0)

        taken = interleaved({"beside": lambda: draw(beside=True), "quiet": lambda: draw(beside=False)}, rounds)
    finally:
        neighbour.kill()
        neighbour.wait()
    return [line("one picture beside a busy neighbour / without", "x", ratios(taken, "beside", "quiet"), target=1.3)]


def _all(held: Bench, subject_id: str, count: int, seed: int, *, steps: int | None = None) -> tuple[list[float], float]:
    """So many requests at once: the seconds of each, and of all."""
    began = time.monotonic()
    jobs = [held.ask_for_a_picture(subject_id, 100 * seed + number, steps) for number in range(count)]
    held.work()
    return [held.seconds_of(job) for job in jobs], time.monotonic() - began


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
