from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image as Picture

from core.jobs.claims import Work
from core.jobs.ledger import Ledger, Limits
from core.jobs.service import Jobs
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import Consent, GenerateRequest, Job, JobKind, Subject
from core.settings import Settings
from core.testing import MemoryNotifier, MemoryStore
from worker.lease import Patience
from worker.maintenance import Maintenance
from worker.runner import BatchLimits, JobRunner
from worker.testing import FakeEngine, Rehearsal, read_diary


def photo(side: int = 8) -> bytes:
    file = io.BytesIO()
    Picture.linear_gradient("L").resize((side, side)).convert("RGB").save(file, "PNG")
    return file.getvalue()


@dataclass
class Shop:
    """ServiceHarness and worker in one process, over a real Redis, a store in memory and a fake engine."""

    ledger: Ledger
    folder: Path

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.notifier = MemoryNotifier()
        self.jobs = Jobs(self.store, self.ledger, self.notifier)
        self.maintenance = Maintenance(self.jobs)
        self.engine = FakeEngine(Settings(data_dir=self.folder))
        self.stop = False
        self.runner = JobRunner(
            Work(self.jobs, patience=0.0),
            self.engine,
            told_to_stop=lambda: self.stop,
            patience=Patience(),
            batch=BatchLimits(jobs=8, rows=16),
        )

    def new_subject(self, photos: tuple[int, ...] = (8,), **options: object) -> tuple[Subject, Job]:
        consent = Consent(at=1.0, version="1")
        return self.jobs.create_subject("local", [photo(side) for side in photos], consent=consent, **options)  # type: ignore[arg-type]

    def ready_subject(self, **options: object) -> Subject:
        subject, job = self.new_subject(**options)  # type: ignore[arg-type]
        assert self.answer(job) == 1
        return self.jobs.subject("local", subject.id)

    def generation(self, subject: Subject, **changes: object) -> Job:
        request = GenerateRequest(subject_id=subject.id, prompt="a [V] face").model_copy(update=changes)
        return self.jobs.create_generation("local", request)

    def answer(self, job: Job) -> int:
        return self.runner.answer(job.kind, job.ref)

    def answer_all(self, kind: JobKind = JobKind.GENERATE) -> list[int]:
        """Answer bells until nothing is left to do; gives how many jobs each of them took."""
        taken = []
        while count := self.runner.answer(kind, ""):
            taken.append(count)
        return taken

    def now(self, job: Job) -> Job:
        return self.jobs.job("local", job.id)

    def rehearse(self, **script: object) -> None:
        (self.folder / "rehearsal.json").write_text(Rehearsal.model_validate(script).model_dump_json())

    def diary(self, event: str) -> list[dict[str, object]]:
        return [entry for entry in read_diary(self.folder) if entry["event"] == event]

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
def shop(local_redis: LocalRedis, tmp_path: Path) -> Iterator[Shop]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield Shop(Ledger(redis, Limits(queue_limit=100)), tmp_path)
    redis.close()
