"""docs/accepted.md: what is accepted, warned about and refused, by asking. `make docs` writes it.

python -m tests.docs.accepted docs/accepted.md

Each row is a request to the application, whose store is in memory and whose worker has the fake engine: what the page
says is what was answered.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from api.server.app import create_app
from api.server.checked_photos import PhotoChecker
from api.server.dependencies import the_photo_checker
from api.server.testing import as_file, drawn_face
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.jobs.ledger import Ledger, Limits
from core.photos.check import check_photo
from core.photos.choice import Choice
from core.photos.records import PhotoCheck
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import JobKind
from core.services import Services, make_services
from core.settings import Settings
from core.testing import MemoryNotifier, MemoryStore
from tests.docs.accepted_cases import GENERATIONS, NEW, SUBJECT, SUBJECT_FIELDS, UNKNOWN, Upload, faces, files
from worker.engine import load_engine
from worker.lease import Patience
from worker.runner import BatchLimits, JobRunner

_HEAD = """# What is accepted, warned about and refused

Made by `make docs` from requests that were sent: add a case to `tests/docs/accepted_cases.py`, not a line here. A
refusal changes nothing; its `detail` says what to do ([api.md](api.md)).
"""
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Application:
    """The application, with all that it needs in this process."""

    client: TestClient
    services: Services
    settings: Settings

    def upload(self, *photos: bytes, **fields: str | None) -> httpx.Response:
        """Send photos as a new subject, with consent."""
        sent = {name: value for name, value in ({"consent": "true"} | fields).items() if value is not None}
        return self.client.post("/v1/subjects", files=[("photo", photo) for photo in photos], data=sent)

    def personalize(self) -> None:
        """Do the worker's part, for all that was accepted so far."""
        engine = load_engine(self.settings)
        runner = JobRunner(self.services, engine, worker_stops=lambda: False, patience=Patience(), batch=BatchLimits())
        while runner.handle(JobKind.PERSONALIZE, ""):
            pass


def accepted() -> str:
    """The page; the same code gives the same text."""
    with application(_whole_picture) as stub, application(check_photo) as real:
        sections = {
            "Files": _uploads(stub, files()),
            "What photos show": _uploads(real, faces()),
            "Fields beside the photos": _fields(stub),
            "Generations": _generations(stub),
        }
    return _HEAD + "".join(f"\n## {title}\n\n| sent | |\n|---|---|\n{_table(rows)}" for title, rows in sections.items())


@contextmanager
def application(check: PhotoChecker) -> Iterator[Application]:
    """With this check of photos."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(LocalRedis(folder / "redis"))
        settings = Settings(redis_url=redis.url, data_dir=folder, engine="worker.testing:FakeEngine")
        ledger = Ledger(stack.enter_context(connect(settings)), Limits(queue_limit=1000))
        services = make_services(MemoryStore(), ledger, MemoryNotifier())
        app = create_app(settings, services=services)
        app.dependency_overrides[the_photo_checker] = lambda: check
        client = TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 50000))
        yield Application(stack.enter_context(client), services, settings)


def outcome(answer: httpx.Response) -> str:
    """What became of a request, without what differs from one time or machine to the next."""
    body = answer.json()
    if answer.is_success:
        warnings = [each if isinstance(each, str) else f"`{each['code']}`" for each in body.get("warnings", [])]
        return f"accepted, with a warning: {', '.join(warnings)}" if warnings else "accepted"
    errors = body.get("errors") or []
    codes = dict.fromkeys(each.get("code") or body["code"] for each in errors) or [body["code"]]
    fields = "; ".join(f"`{each['field']}`: {each['message']}" for each in errors)
    if body["code"] in ("unsupported-media-type", "upload-refused"):
        said = body["detail"]
    else:
        said = fields if body["code"] == "invalid-input" else body["title"] if len(codes) == 1 else ""
    return f"{answer.status_code} {', '.join(f'`{code}`' for code in codes)} {said}".rstrip()


def _uploads(app: Application, uploads: Iterator[Upload]) -> Rows:
    return [(each.what, outcome(app.upload(*each.photos, **each.fields))) for each in uploads]


def _fields(app: Application) -> Rows:
    photo = as_file(drawn_face(96))
    return [(what, outcome(app.upload(photo, **fields))) for what, fields in SUBJECT_FIELDS]


def _generations(app: Application) -> Rows:
    ready = app.upload(as_file(drawn_face(96))).json()
    app.personalize()
    new = app.upload(as_file(drawn_face(96))).json()
    ids = {SUBJECT: ready["id"], NEW: new["id"], UNKNOWN: "sub_" + "0" * 25}
    rows = []
    for fields in GENERATIONS:
        body = json.dumps({"prompt": "a [V] face", "subject_id": SUBJECT} | fields)
        for name, subject_id in ids.items():
            body = body.replace(f'"{name}"', f'"{subject_id}"')
        answer = app.client.post("/v1/generations", content=body, headers={"Content-Type": "application/json"})
        rows.append((f"`{_short(fields)}`", outcome(answer)))
    return rows


def _short(fields: dict[str, Any]) -> str:
    """As JSON without the outer braces, long prompts from their beginning and end."""
    text = json.dumps(fields, ensure_ascii=False)[1:-1]
    return text if len(text) <= 160 else f"{text[:60]} ... {text[-40:]} ({len(text.split())} words)"


def _table(rows: Rows) -> str:
    return "".join(f"| {_cell(what)} | {_cell(became)} |\n" for what, became in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _whole_picture(image: Image.Image, _: Choice | None) -> PhotoCheck:
    """A face as large as its picture: where only the file matters."""
    side = float(min(image.size))
    return PhotoCheck(face=Face(image, FRAME * side, np.array([0.0, 0.0, side, side]), 1.0))


def main(arguments: list[str]) -> int:
    """Write the named file, and return the exit status: 2 without a name."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.docs.accepted FILE\n")
        return 2
    Path(arguments[0]).write_text(accepted())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
