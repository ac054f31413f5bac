"""Following a job through processes of their own, which come and go: Redis, the API, a worker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService
from hyperdreambooth.client import Client

pytestmark = pytest.mark.process
LAST = {"succeeded", "failed", "canceled", "deleted"}


@pytest.fixture
def service(tmp_path) -> Iterator[LocalService]:
    (tmp_path / "rehearsal.json").write_text('{"steps": 100, "step_seconds": 0.1}')
    quick = {"HDB_ENGINE": "worker.testing:FakeEngine", "HDB_LEASE_SECONDS": "2", "HDB_REAP_SECONDS": "0.2"}
    with LocalService(tmp_path, environ=quick) as running:
        yield running


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Follower(threading.Thread):
    """As a browser does: connects again with the last id, until the event that is the last one."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.connections = 0

    def run(self) -> None:
        while not self.events or self.events[-1]["type"] not in LAST:
            try:
                self.connections += 1
                self._listen()
            except httpx.TransportError:
                time.sleep(0.1)

    def _listen(self) -> None:
        headers = {"last-event-id": self.ids[-1]} if self.ids else {}
        with httpx.stream("GET", self.url, headers=headers, timeout=30) as answer:
            name = ""
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    name = line[4:]
                if line.startswith("data: "):
                    self.ids.append(name)
                    self.events.append(json.loads(line[6:]))

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


def test_a_follower_outlives_the_worker_and_the_api(service: LocalService):
    photo = as_file(drawn_face(400))
    with Client(service.url) as client:
        began = time.monotonic()
        subject = client.create_subject(photo, consent=True)
        follower = Follower(f"{service.url}/v1/jobs/{subject.job_id}/events")
        follower.start()
        until(lambda: "preview" in follower.types)
        assert time.monotonic() - began < 5
        preview = next(event["preview"] for event in follower.events if event["type"] == "preview")
        assert httpx.get(service.url + preview["url"]).headers["content-type"] == "image/png"
        seen = client.subject(subject.id)
        assert (seen.status, seen.preview_ready) == ("personalizing", True)
        assert client.generate(subject.id, "a [V] face", stage="preview").status == "queued"

        until(lambda: follower.types[-1] == "progress" and (follower.events[-1].get("step") or 0) > 5)
        service.worker.kill()
        (service.folder / "rehearsal.json").write_text('{"steps": 40, "step_seconds": 0.1, "second_look": true}')
        service.restart_worker()
        until(lambda: follower.types.count("preview") == 2)

        connections, told_to_stop = follower.connections, time.monotonic()
        service.api.stop()
        assert time.monotonic() - told_to_stop < 4, "it waited for the stream"
        service.api.start()
        follower.join(timeout=60)
        assert follower.connections > connections
        assert follower.types[-1] == "succeeded"
        previews = [event["preview"] for event in follower.events if event["type"] == "preview"]
        assert [each["id"] for each in previews] == [preview["id"], preview["id"], preview["id"].replace("-0", "-1")]
        pictures = {httpx.get(service.url + each["url"]).content for each in previews}
        assert len(pictures) == 2, "who was told of the first one can still have it"
        assert client.subject(subject.id).preview.id == previews[-1]["id"]
        assert follower.events[-1]["job"]["attempt"] == 2
        assert [event["version"] for event in follower.events] == list(range(1, len(follower.events) + 1))
        assert len(set(follower.ids)) == len(follower.ids)
        client.delete_subject(subject.id)
        assert httpx.get(service.url + preview["url"]).status_code == 404
