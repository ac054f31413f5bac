"""Whether a request takes longer when many jobs wait: `python -m tests.bench.queued --jobs 20000`.

Redis and the API, without a worker: asking for a picture is measured with nothing queued, and again with so many jobs.
Ends with 0 when all but one in a hundred take at most FACTOR times as long. What a request costs the API's processor is
said as well: it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from core.records import GenerateRequest
from core.services import Services, open_services
from core.settings import load_settings
from deploy.local import LocalService
from tests.bench.load import ENVIRON, Figure, cpu, furnish, measure, post

FACTOR = 1.5
"""What all but one in a hundred may take with a full queue, in times of an empty one."""
FREE = {"HDB_REQUESTS_PER_MINUTE": "0", "HDB_PICTURES_PER_HOUR": "0"}


def fill(services: Services, subject_id: str, jobs: int) -> None:
    """Accept so many jobs, as the API does, but for the disk, which is not waited for."""
    sync, os.fsync = os.fsync, lambda _: None  # type: ignore[assignment]

    def accept(seed: int) -> None:
        services.subjects.generate("local", GenerateRequest(subject_id=subject_id, prompt="a [V] face", seed=seed))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(accept, range(jobs)))
    os.fsync = sync


def run(folder: Path, *, jobs: int, seconds: float) -> int:
    """Measure a service of its own, and print. 1 when a full queue makes requests slower than it may."""
    with LocalService(folder, environ=ENVIRON | FREE) as service:
        with httpx.Client(base_url=service.url, timeout=90) as client:
            subject, _ = furnish(client)
        service.worker.stop()
        request = post("/v1/generations", {"subject_id": subject, "prompt": "a [V] face"})

        def said(what: str) -> Figure:
            before = cpu(service.api.pid)
            figure = measure(service.url, request, connections=4, seconds=seconds)
            each = (cpu(service.api.pid) - before) / figure.requests
            print(f"POST, {what}: {figure}; {1000 * each:.2f} ms of the API's processor each", flush=True)
            return figure

        measure(service.url, request, connections=4, seconds=1.0)  # warm
        empty = said("little queued")
        services = open_services(
            load_settings(
                redis_url=service.redis.url, data_dir=str(folder), queue_limit="1000000", queue_total="1000000"
            )
        )
        fill(services, subject, jobs)
        services.redis.close()
        full = said(f"{jobs:,} queued")
    print(f"99 of 100 took {full.p99 / empty.p99:.2f} times as long (at most {FACTOR})")
    return int(full.p99 > FACTOR * empty.p99)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.bench.queued", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hdb-queued-") as folder:
        return run(Path(folder), jobs=asked.jobs, seconds=asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
