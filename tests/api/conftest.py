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
from api.server.decoding.decoder import PhotoDecoder
from api.server.dependencies import the_photo_checker
from api.server.examples import example_of
from api.server.testing import as_file, drawn_face
from core.errors import PhotoRefused, SeveralFaces
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.jobs.archive import JobArchive
from core.jobs.claims import Assignment
from core.jobs.ledger import Ledger, Limits, Progress
from core.photos.choice import Choice
from core.photos.framing import Place
from core.photos.reasons import Reason
from core.photos.records import PhotoCheck, PhotoWarning
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import GenerateRequest, GenerateResult, PersonalizeResult, Preview, Weights
from core.records import Image as StoredImage
from core.services import Services, make_services
from core.settings import Settings
from core.storage.keys import image_id
from core.testing import MemoryNotifier, MemoryStore
from hyperdreambooth.schemas import JobAnswer
from worker.pictures import encode, notes_of


class StubFace(Face):
    """A face in the middle of a picture, as large as the picture."""

    def __init__(self, image: Image.Image) -> None:
        super().__init__(image, FRAME * image.width, np.array([0.0, 0.0, *image.size]), 1.0)

    @property
    def eye_distance(self) -> float:
        return 0.246 * self.image.width

    def aligned(self, size: int) -> Image.Image:
        return self.image.resize((size, size))


@dataclass
class StubFinder:
    """Finds a face in every picture, unless it has been told what to refuse it with."""

    refusal: PhotoRefused | None = None
    warnings: tuple[PhotoWarning, ...] = ()
    seen: list[Image.Image] = field(default_factory=list)
    choices: list[Choice | None] = field(default_factory=list)

    def __call__(self, image: Image.Image, choice: Choice | None = None) -> PhotoCheck:
        self.seen.append(image)
        self.choices.append(choice)
        if self.refusal:
            faces = self.refusal.count if isinstance(self.refusal, SeveralFaces) else 0
            reason = Reason(type(self.refusal), self.refusal.detail, "")
            return PhotoCheck((reason,), places=(Place(0.1, 0.2, 0.3, 0.4),) * faces)
        return PhotoCheck(warnings=self.warnings, face=StubFace(image))


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
def ledger(settings: Settings) -> Iterator[Ledger]:
    redis = connect(settings)
    redis.flushdb()
    yield Ledger(redis, Limits(queue_limit=3))
    redis.close()


@pytest.fixture
def archive(store: MemoryStore) -> JobArchive:
    return JobArchive(store)


@pytest.fixture
def services(store: MemoryStore, ledger: Ledger, notifier: MemoryNotifier) -> Services:
    return make_services(store, ledger, notifier)


@pytest.fixture
def finder() -> StubFinder:
    return StubFinder()


@pytest.fixture(scope="session")
def decoder() -> Iterator[PhotoDecoder]:
    """One for all tests: its process takes a while to start."""
    decoder = PhotoDecoder()
    yield decoder
    decoder.close()


@pytest.fixture
def client(settings: Settings, services: Services, finder: StubFinder, decoder: PhotoDecoder) -> Iterator[TestClient]:
    app = create_app(settings, services=services)
    app.state.decoder = decoder
    app.dependency_overrides[the_photo_checker] = lambda: finder
    address = ("127.0.0.1", 50000)
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False, client=address) as client:
        yield client


def job_document(**changes: Any) -> dict[str, Any]:
    """A job as the service tells of it: the example of its model, with these changes."""
    schema = JobAnswer.model_json_schema(mode="serialization")
    return {**example_of(schema, schema["$defs"]), **changes}


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """The application as a real server, in a thread; gives its address."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1, **options)
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

    services: Services
    assignment: Assignment

    def at(self, stage: str, step: int, total: int) -> Held:
        self.services.claims.beat(self.assignment, Progress(stage, step, total, step / total, 1.5), event="progress")
        return self

    def keep(self, name: str, data: bytes) -> str:
        return self.services.claims.store(self.assignment, name, data, content_type="application/octet-stream")

    def show(self) -> Held:
        """What the hypernetwork predicted, and a picture of it."""
        job = self.assignment.job
        png = encode(np.asarray(drawn_face(64)), {})
        self.keep("0.png", png)
        self.keep("preview.lidb", b"preview")
        preview = Preview(image=StoredImage(id=image_id(job.id, 0), seed=0, width=64, height=64))
        assert self.services.claims.preview(self.assignment, preview) == "held"
        return self

    def succeed(self, result: PersonalizeResult | GenerateResult) -> None:
        assert self.services.claims.commit(self.assignment, result, {"finetune": 1.5})


@pytest.fixture
def claim(services: Services) -> Callable[..., Held]:
    """Claims a job, as a worker does."""

    def claim(job_id: str, tenant: str = "local") -> Held:
        (assignment,) = services.claims.claim(services.jobs.get(tenant, job_id).kind, f"{tenant}/{job_id}")
        return Held(services, assignment)

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
        for index, seed in enumerate(request.seeds):
            png = encode(np.asarray(drawn_face(64)), notes_of(request, seed))
            held.keep(f"{index}.png", png)
            identifier = image_id(job_id, index)
            images.append(StoredImage(id=identifier, seed=seed, width=64, height=64))
        held.succeed(GenerateResult(images=tuple(images), options=request.options))
        return [image.id for image in images]

    return end


@pytest.fixture
def subject_id(client: TestClient, photo: bytes, personalized: Callable[[str], None]) -> str:
    """A subject that is ready."""
    answer = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})
    personalized(answer.json()["job_id"])
    return str(answer.json()["id"])
