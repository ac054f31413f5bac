"""After a deletion nothing is found of the person: not in the store, not in Redis, not in any log; within 60 s.

Redis, the API and a worker are processes of their own. What is looked for is gathered before: the name, the prompts,
the photo, the weights and the pictures as they were stored, and the ids, which may stay only in the receipt.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from redis import Redis

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import JobStatus
from worker.testing import Rehearsal, read_diary

pytestmark = pytest.mark.process
NAME = "Erasmus-von-7731"
PROMPT = "a zeppelin-7731 over a [V] face"
NEGATIVE = "no umbrella-7731"
MOST_SECONDS = 60.0
RECEIPTS = ("erasures", "erasing")
"""Folders of the store where a deleted subject's id is kept for a day, as docs say."""


@dataclass
class Scene:
    """A service, and everything that is known of a subject there."""

    service: LocalService
    client: Client
    redis: Redis
    traces: dict[str, bytes] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    @property
    def store(self) -> Path:
        return self.service.folder / "store"

    def play(self, **script: object) -> None:
        (self.service.folder / "rehearsal.json").write_text(Rehearsal.model_validate(script).model_dump_json())

    def remember(self, subject_id: str) -> None:
        """Note what is stored about a subject: the middle of every photo, weights file and picture."""
        for path, data in self.files():
            is_about = subject_id in str(path) or any(job in str(path) for job in self.ids)
            if is_about and path.suffix in {".png", ".lidb"}:
                self.traces[path.name + str(len(self.traces))] = data[-120:-20] if len(data) > 200 else data
        self.ids.add(subject_id)

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """Every file of the service, its logs and Redis' own among them, with what is in it."""
        for folder, _, names in os.walk(self.service.folder):  # rglob stumbles over a folder that has just gone
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # so has this one
                    yield path, path.read_bytes()

    def in_redis(self) -> bytes:
        """All keys and values."""
        read: dict[bytes, Callable[[bytes], object]] = {
            b"string": self.redis.get,
            b"hash": self.redis.hgetall,
            b"zset": lambda key: self.redis.zrange(key, 0, -1),
            b"set": self.redis.smembers,
            b"list": lambda key: self.redis.lrange(key, 0, -1),
            b"stream": self.redis.xrange,
        }
        found = [(key, read.get(self.redis.type(key))) for key in self.redis.scan_iter()]
        return b"\n".join(key + repr(value(key)).encode() for key, value in found if value)  # None: it has just expired

    def found(self) -> list[str]:
        """Where something of the person is left."""
        redis, left = self.in_redis(), []
        sought = {**self.traces, "name": NAME.encode(), "prompt": b"zeppelin-7731", "negative": b"umbrella-7731"}
        for path, data in self.files():
            left += [f"{name} in {path}" for name, trace in sought.items() if trace in data]
            if path.is_relative_to(self.store) and path.relative_to(self.store).parts[0] not in RECEIPTS:
                left += [f"{it} in {path}" for it in self.ids if it.encode() in data or it in str(path)]
        left += [f"{name} in Redis" for name, trace in sought.items() if trace in redis]
        return left + [f"{it} in Redis" for it in self.ids if it.encode() in redis]

    def delete(self, subject_id: str) -> None:
        """Delete the subject, and wait until nothing is found."""
        began = time.monotonic()
        self.client.delete_subject(subject_id)
        while left := self.found():
            assert time.monotonic() - began < MOST_SECONDS, left
            time.sleep(0.5)
        self.still_nothing()

    def still_nothing(self) -> None:
        """Also not a while later: a late writer must not have written anything."""
        time.sleep(3.0)
        assert self.found() == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    environ = {"HDB_ENGINE": "worker.testing:FakeEngine", "HDB_RECONCILE_SECONDS": "1", "HDB_LOG_LEVEL": "DEBUG"}
    with LocalService(tmp_path_factory.mktemp("erasure"), environ=environ) as running:
        yield running


@pytest.fixture
def scene(service: LocalService) -> Iterator[Scene]:
    redis = Redis.from_url(service.redis.url)
    with Client(service.url) as client:
        scene = Scene(service, client, redis)
        scene.play()
        yield scene
    redis.close()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return as_file(drawn_face(300))


def personalize(scene: Scene, photo: bytes) -> tuple[str, str]:
    subject = scene.client.create_subject(photo, consent=True, name=NAME, keep_photos=True)
    scene.ids |= {subject.id, subject.job_id}
    return subject.id, subject.job_id


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_of_a_subject_with_everything(scene, photo):
    subject, job = personalize(scene, photo)
    scene.client.wait(job, timeout=60)
    made = scene.client.generate(subject, PROMPT, n=3, negative_prompt=NEGATIVE)
    scene.ids.add(made.id)
    scene.client.wait(made.id, timeout=60)
    scene.remember(subject)
    assert len(scene.traces) >= 6, "a photo, weights, a preview's weights and picture, three pictures"
    assert len(scene.found()) > len(scene.traces), "else nothing would be proven"
    scene.delete(subject)


def test_while_personalizing(scene, photo):
    scene.play(steps=400, step_seconds=0.05)
    subject, job = personalize(scene, photo)
    until(lambda: scene.client.job(job).step)
    scene.remember(subject)
    assert any("png" in name for name in scene.traces)
    scene.delete(subject)
    until(lambda: read_diary(scene.service.folder)[-1]["event"] == "personalize.stopped")
    scene.still_nothing()


def test_while_generating(scene, photo):
    subject, job = personalize(scene, photo)
    scene.client.wait(job, timeout=60)
    scene.play(steps=400, step_seconds=0.05)
    made, waiting = (scene.client.generate(subject, PROMPT, negative_prompt=NEGATIVE, seed=seed) for seed in (1, 2))
    scene.ids |= {made.id, waiting.id}
    until(lambda: scene.client.job(made.id).status is JobStatus.RUNNING and scene.client.job(made.id).step)
    scene.remember(subject)
    scene.delete(subject)
    until(lambda: read_diary(scene.service.folder)[-1]["event"] == "generate.stopped")
    scene.still_nothing()


def test_in_the_middle_of_a_batch(scene, photo):
    subject, job = personalize(scene, photo)
    scene.client.wait(job, timeout=60)
    scene.play(steps=20, step_seconds=0.05)
    batch = scene.client.create_batch(prompts=[f"{PROMPT} {number}" for number in range(20)], subjects=[subject])
    until(lambda: scene.client.batch(batch.id).counts.succeeded)
    scene.remember(subject)
    scene.delete(subject)


def test_an_answer_that_is_remembered_is_blanked(scene, photo):
    headers = {"Idempotency-Key": "erasure-7731"}
    with httpx.Client(base_url=scene.service.url) as http:
        form = {"files": {"photo": photo}, "data": {"consent": "true", "name": NAME}}
        subject = http.post("/v1/subjects", **form, headers=headers).json()
        scene.ids |= {subject["id"], subject["job_id"]}
        until(lambda: http.get(subject["links"]["job"]).json()["status"] == "succeeded")
        asked = {"subject_id": subject["id"], "prompt": PROMPT}
        scene.ids.add(http.post("/v1/generations", json=asked, headers=headers).json()["id"])
    scene.remember(subject["id"])
    scene.delete(subject["id"])
