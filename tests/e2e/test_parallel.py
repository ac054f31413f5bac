"""A hundred requests at once with one Idempotency-Key, over real connections: one is carried out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService
from hyperdreambooth.client import Client
from worker.testing import read_diary

pytestmark = pytest.mark.process
MANY = 100


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    environ = {"HDB_ENGINE": "worker.testing:FakeEngine"}
    with LocalService(tmp_path_factory.mktemp("parallel"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def subject(service: LocalService) -> str:
    with Client(service.url) as client:
        subject = client.create_subject(as_file(drawn_face(200)), consent=True)
        client.wait(subject.job_id, timeout=60)
        return subject.id


def at_once(
    service: LocalService, requests: list[dict[str, Any]], path: str = "/v1/generations"
) -> list[httpx.Response]:
    """The answers to these, each sent over a connection of its own, all at the same time."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=MANY)
        async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as client:
            return await asyncio.gather(*(client.post(path, **request) for request in requests))

    return asyncio.run(ask())


def generation(subject: str, key: str, **changes: object) -> dict[str, Any]:
    asked = {"subject_id": subject, "prompt": "a pencil sketch of a [V] face"} | changes
    return {"json": asked, "headers": {"Idempotency-Key": key}}


def jobs(service: LocalService) -> int:
    with Client(service.url) as client:
        return sum(1 for _ in client.jobs())


def test_a_hundred_at_once_make_one_job(service, subject):
    before = jobs(service)
    answers = at_once(service, [generation(subject, "together")] * MANY)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert jobs(service) == before + 1
    with Client(service.url) as client:
        client.wait(answers[0].json()["id"], timeout=60)
    assert [entry["event"] for entry in read_diary(service.folder)].count("generate.begun") == 1


def test_another_body_among_them_is_refused(service, subject):
    before = jobs(service)
    requests = [generation(subject, "mixed", n=1 + index % 2) for index in range(MANY)]
    answers = at_once(service, requests)
    assert Counter(answer.status_code for answer in answers) == {202: MANY // 2, 422: MANY // 2}
    refused = {answer.json()["code"] for answer in answers if answer.status_code == 422}
    assert refused == {"idempotency-key-reused"}
    assert jobs(service) == before + 1


def test_of_photos_one_subject_is_made(service):
    form = {"files": {"photo": as_file(drawn_face(160))}, "data": {"consent": "true"}}
    requests = [{**form, "headers": {"Idempotency-Key": "photos"}}] * 20
    answers = at_once(service, requests, "/v1/subjects")
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
