"""Which modules of the project a request passes through: `python -m tests.bench.path`.

Counted is each module of api, core, worker and hyperdreambooth that runs a line of a function while the request is
served, after one request of the same kind. As in the tests of the API, the store is in memory, photos have a stub in
the place of the face detector, and no worker runs; `personalize` is the worker's part, with the embedded bundle.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from api.server.app import create_app
from api.server.dependencies import the_photo_checker
from api.server.testing import as_file, drawn_face
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.jobs.ledger import Ledger, Limits
from core.photos.choice import Choice
from core.photos.records import PhotoCheck
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import JobKind
from core.services import Services, make_services
from core.settings import Settings
from core.testing import MemoryNotifier, MemoryStore
from worker.engine import load_engine
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner

ROOT = Path(__file__).parents[2]


class Trace:
    """The modules whose functions were called, in all threads that begin after this is made."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        threading.settrace(self._note)

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            self._seen.add(frame.f_code.co_filename)

    @contextmanager
    def modules(self) -> Iterator[list[str]]:
        """A list that has the modules at the end, as paths."""
        found: list[str] = []
        self._seen.clear()
        sys.settrace(self._note)
        yield found
        sys.settrace(None)
        paths = [Path(name) for name in set(self._seen) if name.startswith(f"{ROOT}/")]
        names = {path.relative_to(ROOT) for path in paths}
        found += sorted(str(name) for name in names if name.parts[0] in ("api", "core", "worker"))

    def end(self) -> None:
        """Stop noting."""
        threading.settrace(None)


def _whole_picture(image: Image.Image, _: Choice | None) -> PhotoCheck:
    """A face as large as its picture."""
    return PhotoCheck(face=Face(image, FRAME * image.width, np.array([0.0, 0.0, *image.size]), 1.0))


def modules_passed(**options: str) -> dict[str, list[str]]:
    """The modules that each kind of request passes through; `options` are settings."""
    trace = Trace()
    try:
        with tempfile.TemporaryDirectory() as folder, LocalRedis(Path(folder)) as redis:
            settings = Settings(redis_url=redis.url, data_dir=Path(folder), **options)  # type: ignore[arg-type]
            services = make_services(MemoryStore(), Ledger(connect(settings), Limits()), MemoryNotifier())
            app = create_app(settings, services=services)
            app.dependency_overrides[the_photo_checker] = lambda: _whole_picture
            with TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
                return _ask(trace, client, services, settings)
    finally:
        trace.end()


def _ask(trace: Trace, client: TestClient, services: Services, settings: Settings) -> dict[str, list[str]]:
    form: Any = {
        "files": {"photo": as_file(drawn_face(128))},
        "data": {"consent": "true", "options": '{"steps": 2}'},
    }
    client.post("/v1/subjects", **form)
    engine = load_engine(settings)
    runner = JobRunner(services, engine, worker_stops=lambda: False, patience=Patience(), batch=BatchLimits())
    runner.handle(JobKind.PERSONALIZE, "")
    with trace.modules() as create:
        subject = client.post("/v1/subjects", **form).json()
    client.get(f"/v1/jobs/{subject['job_id']}")
    with trace.modules() as read:
        client.get(f"/v1/jobs/{subject['job_id']}")
    with trace.modules() as personalize:
        runner.handle(JobKind.PERSONALIZE, "")
    asked = {"subject_id": subject["id"], "prompt": "a pencil sketch of a [V] face"}
    client.post("/v1/generations", json=asked).raise_for_status()
    with trace.modules() as generate:
        client.post("/v1/generations", json=asked)
    return {"create a subject": create, "generate": generate, "read a job": read, "personalize": personalize}


def main() -> None:
    """Print the modules and their numbers."""
    for what, modules in modules_passed().items():
        print(f"{what}: {len(modules)}")
        print("".join(f"  {name}\n" for name in modules))


if __name__ == "__main__":
    main()
