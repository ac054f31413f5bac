from __future__ import annotations

import json
import tracemalloc

import anyio
import pytest
from fastapi import FastAPI

MIB = 2**20
HEAD = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n\r\n\xff\xd8\xff'


class Sender:
    """A client that sends a body in pieces, and counts what was taken from it."""

    def __init__(self, pieces: int, **headers: str) -> None:
        self.left = pieces
        self.taken = 0
        self.answer: list[dict] = []
        self.headers = {"host": "127.0.0.1", "content-type": "multipart/form-data; boundary=b", **headers}

    async def receive(self) -> dict:
        if self.left < 0:
            return {"type": "http.disconnect"}
        self.left -= 1
        piece = HEAD if self.taken == 0 else bytes(MIB)
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": self.left >= 0}

    async def send(self, message: dict) -> None:
        self.answer.append(message)

    def post(self, app: FastAPI) -> dict:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/subjects",
            "raw_path": b"/v1/subjects",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 8000),
        }
        anyio.run(app, scope, self.receive, self.send)
        assert self.answer[0]["status"] == 413
        return json.loads(self.answer[1]["body"])


def test_a_large_photo_without_a_length_is_refused_and_never_held(client, store):
    sender = Sender(40, **{"transfer-encoding": "chunked"})
    tracemalloc.start()
    body = sender.post(client.app)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (body["code"], body["field"]) == ("upload-too-large", "photo")
    assert sender.left == -1, "what was still coming is read, so that the client sees the answer"
    assert peak < 30 * MIB
    assert list(store.list("")) == []


def test_a_large_declared_body_is_dropped_unread(client):
    sender = Sender(40, **{"content-length": str(40 * MIB)})
    tracemalloc.start()
    body = sender.post(client.app)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert body["code"] == "upload-too-large"
    assert sender.left == -1
    assert peak < 8 * MIB


def test_a_client_that_waits_to_be_asked_is_not_asked(client):
    sender = Sender(40, **{"content-length": str(40 * MIB), "expect": "100-continue"})
    sender.post(client.app)
    assert sender.taken == 0


def test_there_is_an_end_to_dropping(client):
    sender = Sender(100, **{"content-length": str(100 * MIB)})
    sender.post(client.app)
    assert 60 * MIB < sender.taken < 70 * MIB


@pytest.mark.parametrize("size", [64 * 1024 + 1, 40 * MIB])
def test_other_bodies_are_small(client, size):
    answer = client.post("/v1/generations", content=bytes(size), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["code"] == "upload-too-large"


def test_request_ids_are_kept_when_harmless_and_made_when_not(client):
    assert client.get("/healthz", headers={"x-request-id": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    made = [
        client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"] for bad in ("", "a b", "x" * 65)
    ]
    assert all(identifier.startswith("req_") for identifier in made)
    assert len(set(made)) == 3
