"""Mixed load for as long as is wanted, and what it costs: `python -m tests.bench.soak --minutes 120`.

Generations that are waited for and read, subjects that come and go, with the fake engine. A line every half minute:
jobs, seconds of all but one in a hundred, MB of API, worker and its child, and Redis, and its keys. At the end:
how much memory grew after the first quarter, and how much a finished job's record takes in Redis.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from redis import Redis

from core.settings import EMBEDDED_BUNDLE
from deploy.local import LocalService
from hyperdreambooth import Client, JobFailed, Problem
from tests.harness import FAKE

FREE = {"HDB_REQUESTS_PER_MINUTE": "0", "HDB_PICTURES_PER_HOUR": "0", "HDB_PERSONALIZATIONS_PER_HOUR": "0"}
SAMPLE_SECONDS = 30.0


def memory(pid: int) -> tuple[float, float]:
    """Megabytes of a process, and of its children."""
    process = psutil.Process(pid)
    sizes = [each.memory_info().rss / 1e6 for each in (process, *process.children(recursive=True))]
    return sizes[0], sum(sizes[1:])


class Soak:
    """The load and its measures."""

    def __init__(self, service: LocalService) -> None:
        self.service = service
        self.redis = Redis.from_url(service.redis.url, decode_responses=True)
        self.client = Client(service.url)
        self.photo = EMBEDDED_BUNDLE / "demo-face.png"
        self.subject = self.client.personalize(self.photo, consent=True)
        self.jobs = self.failed = 0
        self.seconds: list[float] = []
        self.samples: list[tuple[float, ...]] = []

    def step(self) -> None:
        """One job, and what a caller does with it; each fiftieth time a person comes and goes."""
        began = time.monotonic()
        job = self.client.wait(self.client.generate(self.subject, "a [V] face", n=1, seed=self.jobs))
        self.client.image((job.images or [])[0])
        self.seconds.append(time.monotonic() - began)
        self.jobs += 1
        if self.jobs % 50 == 0:
            self.client.delete_subject(self.client.personalize(self.photo, consent=True))

    def sample(self) -> None:
        """Measure once, and print it."""
        api, worker = memory(self.service.api.pid), memory(self.service.worker.pid)
        slow = sorted(self.seconds)[int(len(self.seconds) * 0.99)] if self.seconds else 0.0
        used: float = self.redis.info("memory")["used_memory"] / 1e6
        self.samples.append((sum(api), *worker, used))
        self.seconds.clear()
        figures = (self.jobs, slow, sum(api), *worker, used, self.redis.dbsize())
        sys.stdout.write(" ".join(f"{figure:9.2f}" for figure in figures) + "\n")
        sys.stdout.flush()

    def summary(self) -> str:
        """Growth after the first quarter, and the cost of a finished job."""
        start, end = self.samples[len(self.samples) // 4], self.samples[-1]
        grown = ", ".join(
            f"{name} {100 * (after / before - 1):+.1f} %"
            for name, before, after in zip(("API", "worker", "child", "Redis"), start, end, strict=True)
        )
        records = [key for key in self.redis.scan_iter("hdb:*:job:*") if self.redis.ttl(key) > 0][:200]
        size = sum(self.redis.memory_usage(key) or 0 for key in records) / max(len(records), 1)
        return f"{self.jobs} jobs, {self.failed} failed; {grown}; a finished job: {size:.0f} bytes in 1 key\n"


def main() -> int:
    """The exit status: 0 when no job failed."""
    parser = argparse.ArgumentParser(prog="tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LocalService(Path(folder), environ=FAKE | FREE) as service:
        soak = Soak(service)
        until, due = time.monotonic() + 60 * args.minutes, 0.0
        while time.monotonic() < until:
            try:
                soak.step()
            except (JobFailed, Problem):
                soak.failed += 1
            if time.monotonic() > due:
                soak.sample()
                due = time.monotonic() + SAMPLE_SECONDS
        sys.stdout.write(soak.summary())
        soak.client.close()
        soak.redis.close()
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
