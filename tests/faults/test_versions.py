"""Two versions side by side, on one Redis and one store: what either accepts, the other's workers do.

The other version is the last tag; where there is none, the first one with the ledger's turns: earlier ones refuse
records with fields that they do not know. Its files come from the history, and run in processes of their own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.queue.local_redis import LocalRedis
from core.records import JobState
from core.services import open_services
from core.settings import load_settings

ROOT = Path(__file__).parents[2]
ACCEPT = """
import io, json, sys
from PIL import Image
from core.records import Consent, GenerateRequest
from core.services import open_services
from core.settings import load_settings

services, subject_id = open_services(load_settings()), sys.argv[1]
file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "PNG")
made = []
for _ in range(5):
    made.append(services.subjects.create("local", [file.getvalue()], consent=Consent(at=1.0, version="1"))[1].id)
for seed in range(15 if subject_id else 0):
    request = GenerateRequest(subject_id=subject_id, prompt="a [V] face", seed=seed)
    made.append(services.subjects.generate("local", request).id)
print(json.dumps(made))
"""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the other version, in a folder."""
    try:
        tags = _git("tag", "--sort=-creatordate", "--merged", "HEAD").decode().split()
        added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", "core/jobs/demand.py").decode().strip()
        archive = _git("archive", tags[0] if tags else added, "core", "worker", "api/client")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no git history here to take another version from")
    folder = tmp_path_factory.mktemp("other")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


class Versions:
    """One Redis and one store, and processes of two versions."""

    def __init__(self, redis: LocalRedis, data: Path, other: Path) -> None:
        self.folders = {"this": ROOT, "other": other}
        self.data = data
        options = {"redis_url": redis.url, "data_dir": str(data), "engine": "worker.testing:FakeEngine"}
        self.services = open_services(load_settings(**options))
        self.services.redis.flushall()
        self.variables = {f"HDB_{name.upper()}": value for name, value in options.items()}
        self.workers: list[subprocess.Popen[bytes]] = []

    def environ(self, version: str) -> dict[str, str]:
        folder = self.folders[version]
        return {**os.environ, **self.variables, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'api' / 'client'}"}

    def start_worker(self, version: str) -> None:
        with (self.data / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "worker", f"--hostname={version}{len(self.workers)}"]
            folder, environ = self.folders[version], self.environ(version)
            self.workers.append(subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log))

    def accept(self, version: str, subject_id: str = "") -> list[str]:
        command = [sys.executable, "-c", ACCEPT, subject_id]
        done = subprocess.run(
            command, cwd=self.folders[version], env=self.environ(version), stdout=subprocess.PIPE, check=True
        )
        accepted: list[str] = json.loads(done.stdout)
        return accepted

    def states(self, job_ids: list[str], seconds: float = 200.0) -> set[JobState]:
        """How they end."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = [self.services.jobs.get("local", job_id) for job_id in job_ids]
            if all(job.state.is_final for job in jobs) or time.monotonic() > deadline:
                return {job.state for job in jobs}
            time.sleep(0.1)

    def end(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(60)
        self.services.redis.close()


@pytest.fixture
def versions(local_redis: LocalRedis, tmp_path: Path, other_version: Path) -> Iterator[Versions]:
    versions = Versions(local_redis, tmp_path, other_version)
    yield versions
    versions.end()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [["this"], ["other"], ["this", "other"]], ids="+".join)
def test_what_either_version_accepts_the_workers_of_the_other_do(versions: Versions, workers: list[str]) -> None:
    for version in workers:
        versions.start_worker(version)
    first = versions.accept("other") + versions.accept("this")
    assert versions.states(first) == {JobState.SUCCEEDED}
    subject_id = versions.services.jobs.get("local", first[0]).subject_id
    later = versions.accept("this", subject_id) + versions.accept("other", subject_id)
    assert versions.states(later) == {JobState.SUCCEEDED}
