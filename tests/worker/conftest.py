from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture

from core.jobs.ledger import Ledger, Limits
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import Consent, GenerateRequest, Job, JobKind, Subject
from core.settings import Settings
from tests.harness import ServiceHarness
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner
from worker.testing import FakeEngine, FakeScript, read_calls


def photo(side: int = 8) -> bytes:
    file = io.BytesIO()
    Picture.linear_gradient("L").resize((side, side)).convert("RGB").save(file, "PNG")
    return file.getvalue()


class WorkerHarness(ServiceHarness):
    """Services and worker in one process, over a real Redis, a store in memory and a fake engine."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        super().__init__(ledger)
        self.folder = folder
        self.engine = FakeEngine(Settings(data_dir=folder))
        self.stop = False
        self.runner = JobRunner(
            self.services,
            self.engine,
            worker_stops=lambda: self.stop,
            patience=Patience(retry=0.0, beat=0.0),
            batch=BatchLimits(jobs=8, rows=16),
        )

    def new_subject(self, photos: tuple[int, ...] = (8,), **options: object) -> tuple[Subject, Job]:
        consent = Consent(at=1.0, version="1")
        return self.subjects.create("local", [photo(side) for side in photos], consent=consent, **options)  # type: ignore[arg-type]

    def ready_subject(self, **options: object) -> Subject:
        subject, job = self.new_subject(**options)  # type: ignore[arg-type]
        assert self.handle(job) == 1
        return self.subjects.get("local", subject.id)

    def generation(self, subject: Subject, **changes: object) -> Job:
        request = GenerateRequest(subject_id=subject.id, prompt="a [V] face").model_copy(update=changes)
        return self.subjects.generate("local", request)

    def handle(self, job: Job) -> int:
        return self.runner.handle(job.kind, job.ref)

    def handle_all(self, kind: JobKind = JobKind.GENERATE) -> list[int]:
        """Handle notifications until nothing is left to do; returns how many jobs each of them took."""
        taken = []
        while count := self.runner.handle(kind, ""):
            taken.append(count)
        return taken

    def now(self, job: Job) -> Job:
        return self.jobs.get("local", job.id)

    def script_engine(self, **script: object) -> None:
        (self.folder / "fake-engine.json").write_text(FakeScript.model_validate(script).model_dump_json())

    def calls(self, event: str) -> list[dict[str, object]]:
        return [entry for entry in read_calls(self.folder) if entry["event"] == event]

    def at_step(self, step: int, act: Callable[[], object]) -> None:
        """Do something from outside while the engine is at this step of its next run."""
        beat = self.ledger.beat
        steps = iter(range(1_000_000))

        def acting(*args: object, **kwargs: object) -> object:
            if next(steps) == step:
                self.ledger.beat = beat  # type: ignore[method-assign]
                act()
            return beat(*args, **kwargs)  # type: ignore[arg-type]

        self.ledger.beat = acting  # type: ignore[method-assign,assignment]


@pytest.fixture
def worker(local_redis: LocalRedis, tmp_path: Path) -> Iterator[WorkerHarness]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield WorkerHarness(Ledger(redis, Limits(queue_limit=100)), tmp_path)
    redis.close()
