"""The application in one process: a store in memory, a Redis of its own, a face finder that does as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from api.server.app import create_app
from api.server.dependencies import the_face_finder
from api.server.examples import example_of
from api.server.testing import as_file, drawn_face
from core.errors import PhotoRefused
from core.jobs.claims import Assignment, Work
from core.jobs.ledger import Ledger, Limits, Progress
from core.jobs.service import Jobs
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import GenerateRequest, GenerateResult, PersonalizeResult, Preview, Weights
from core.records import Image as StoredImage
from core.settings import Settings
from core.storage.keys import image_id
from core.testing import MemoryNotifier, MemoryStore
from hyperdreambooth.schemas import JobAnswer
from worker.pictures import encode


@dataclass
class StubFace:
    """A face in the middle of a picture, as large as the picture."""

    image: Image.Image

    @property
    def eye_distance(self) -> float:
        return 0.246 * self.image.width

    def aligned(self, size: int) -> Image.Image:
        return self.image.resize((size, size))


@dataclass
class StubFinder:
    """Finds a face in every picture, unless it has been told what to refuse it with."""

    refusal: PhotoRefused | None = None
    seen: list[Image.Image] = field(default_factory=list)

    def __call__(self, image: Image.Image) -> StubFace:
        self.seen.append(image)
        if self.refusal:
            raise self.refusal
        return StubFace(image)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, data_dir=tmp_path)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def notifier() -> MemoryNotifier:
    return MemoryNotifier()


@pytest.fixture
def job_service(settings: Settings, store: MemoryStore, notifier: MemoryNotifier) -> Iterator[Jobs]:
    redis = connect(settings)
    redis.flushdb()
    yield Jobs(store, Ledger(redis, Limits(queue_limit=3)), notifier)
    redis.close()


@pytest.fixture
def finder() -> StubFinder:
    return StubFinder()


@pytest.fixture
def client(settings: Settings, job_service: Jobs, finder: StubFinder) -> Iterator[TestClient]:
    app = create_app(settings, job_service=job_service)
    app.dependency_overrides[the_face_finder] = lambda: finder
    address = ("127.0.0.1", 50000)
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False, client=address) as client:
        yield client


def job_document(**changes: Any) -> dict[str, Any]:
    """A job as the service tells of it: the example of its model, with these changes."""
    schema = JobAnswer.model_json_schema(mode="serialization")
    return {**example_of(schema, schema["$defs"]), **changes}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application as a real server, in a thread; gives its address."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(client: TestClient) -> Iterator[str]:
    """Where the application answers over HTTP."""
    with served(client.app) as url:
        yield url


@pytest.fixture
def photo() -> bytes:
    return as_file(drawn_face(96))


@dataclass
class Held:
    """A job that a worker has claimed, and what the worker may do with it."""

    job_service: Jobs
    work: Work
    assignment: Assignment

    def at(self, stage: str, step: int, total: int) -> Held:
        self.job_service.ledger.beat(self.assignment.claim, Progress(stage, step, total), event="progress")
        return self

    def keep(self, name: str, data: bytes) -> str:
        return self.job_service.archive.put_attempt(
            self.assignment.job, name, data, content_type="application/octet-stream"
        )

    def show(self) -> Held:
        """What the hypernetwork predicted, and a picture of it."""
        job = self.assignment.job
        png = encode(np.asarray(drawn_face(64)), prompt="a [V] face", seed=0, subject_id=job.subject_id)
        image = StoredImage(id=image_id(job.id, 0), key=self.keep("0.png", png), seed=0, width=64, height=64)
        preview = Preview(weights_key=self.keep("preview.lidb", b"preview"), image=image)
        assert self.job_service.ledger.preview(self.assignment.claim, preview) == "held"
        return self

    def succeed(self, result: PersonalizeResult | GenerateResult) -> None:
        assert self.work.commit(self.assignment, result, {"finetune": 1.5})


@pytest.fixture
def claim(job_service: Jobs) -> Callable[..., Held]:
    """Claims a job, as a worker does."""

    def claim(job_id: str, tenant: str = "local") -> Held:
        work = Work(job_service)
        (assignment,) = work.claim(job_service.job(tenant, job_id).kind, f"{tenant}/{job_id}")
        return Held(job_service, work, assignment)

    return claim


@pytest.fixture
def personalized(claim: Callable[..., Held]) -> Callable[..., None]:
    """Ends a personalizing job as a worker does when all went well."""

    def end(job_id: str, tenant: str = "local") -> None:
        held = claim(job_id, tenant)
        weights = Weights(
            refined_key=held.keep("refined.lidb", b"refined"),
            preview_key=held.keep("preview.lidb", b"preview"),
            bytes=7,
            sha256="0" * 64,
        )
        held.succeed(
            PersonalizeResult(
                weights=weights,
                likeness=0.5,
                likeness_by={"bundle": 0.5},
                kept_step=40,
                bundle="tiny",
                bundle_fingerprint="00ff",
            )
        )

    return end


@pytest.fixture
def generated(claim: Callable[..., Held]) -> Callable[..., list[str]]:
    """Ends a generating job with as many pictures as it was asked for; gives their ids."""

    def end(job_id: str, tenant: str = "local") -> list[str]:
        held = claim(job_id, tenant)
        request = held.assignment.request
        assert isinstance(request, GenerateRequest)
        images = []
        for index in range(request.n):
            seed = request.seed + index
            png = encode(np.asarray(drawn_face(64)), prompt=request.prompt, seed=seed, subject_id=request.subject_id)
            key = held.keep(f"{index}.png", png)
            identifier = image_id(job_id, index)
            images.append(StoredImage(id=identifier, key=key, seed=seed, width=64, height=64))
        held.succeed(GenerateResult(images=tuple(images)))
        return [image.id for image in images]

    return end


@pytest.fixture
def subject_id(client: TestClient, photo: bytes, personalized: Callable[[str], None]) -> str:
    """A subject that is ready."""
    answer = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})
    personalized(answer.json()["job_id"])
    return str(answer.json()["id"])
