from __future__ import annotations

import json
import tracemalloc

import anyio
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.server import body_limits, body_memory, early_answers
from api.server.authenticator import Caller
from api.server.body_limits import BodyLimit
from api.server.early_answers import EarlyAnswers

MIB = 2**20
HEAD = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n\r\n\xff\xd8\xff'


class Sender:
    """A client that sends a body in pieces, and counts what was taken from it."""

    def __init__(self, pieces: int, tenant: str = "local", app: FastAPI | None = None, **headers: str) -> None:
        self.left = pieces
        self.state = {"caller": Caller(tenant, has_key=True)} if app else {}
        self.more_scope = {"app": app, "state": self.state} if app else {}
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
        anyio.run(self.request, app)
        return self.refusal(413)

    def refusal(self, status: int) -> dict:
        assert self.answer[0]["status"] == status
        return json.loads(self.answer[1]["body"])

    async def request(self, app: ASGIApp) -> None:
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
            **self.more_scope,
        }
        await app(scope, self.receive, self.send)


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


class Slow:
    """An application that reads bodies, and answers only when it is allowed to."""

    def __init__(self) -> None:
        self.read = 0
        self.go_on = anyio.Event()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
        if message["type"] == "http.disconnect":
            return
        self.read += 1
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def uploads(app: FastAPI, *tenants: str, pieces: int = 18) -> list[Sender]:
    return [Sender(pieces, tenant, app, **{"content-length": str(pieces * MIB)}) for tenant in tenants]


def limited(application: ASGIApp) -> ASGIApp:
    return EarlyAnswers(BodyLimit(application))


def test_large_bodies_share_a_memory_budget_and_wait_for_it(client):
    async def run() -> None:
        application = Slow()
        app = limited(application)
        senders = uploads(client.app, *"abcdefghijkl")
        async with anyio.create_task_group() as tasks:
            for sender in senders:
                tasks.start_soon(sender.request, app)
            await anyio.wait_all_tasks_blocked()
            assert sum(sender.taken for sender in senders) < body_memory.BODY_MEMORY_BYTES, "no more is read"
            assert application.read == 2
            application.go_on.set()
        assert [sender.answer[0]["status"] for sender in senders] == [200] * 12, "they had to wait, and were served"

    anyio.run(run)


def test_a_tenant_has_a_share_of_it_and_waits_for_that_alone(client):
    async def run() -> None:
        application = Slow()
        app = limited(application)
        greedy, other = uploads(client.app, *["greedy"] * 9), uploads(client.app, "other", pieces=9)
        async with anyio.create_task_group() as tasks:
            for sender in (*greedy, *other):
                tasks.start_soon(sender.request, app)
            await anyio.wait_all_tasks_blocked()
            assert [sender.taken > 0 for sender in (*greedy, *other)] == [True, *[False] * 8, True]
            application.go_on.set()
        assert [sender.answer[0]["status"] for sender in (*greedy, *other)] == [200] * 10

    anyio.run(run)


def test_a_body_that_waits_for_memory_too_long_is_refused(client, monkeypatch):
    monkeypatch.setattr(body_memory, "MAX_WAIT_SECONDS", 0.05)

    async def run() -> None:
        application = Slow()
        app = limited(application)
        *first, late, again = uploads(client.app, "a", "b", "c", "d")
        async with anyio.create_task_group() as tasks:
            for sender in first:
                tasks.start_soon(sender.request, app)
            await anyio.wait_all_tasks_blocked()
            await late.request(app)
            assert application.read == 2
            application.go_on.set()
        assert late.refusal(503)["code"] == "unavailable"
        assert late.left == -1, "what was still coming is read, so that the client sees the answer"
        headers = dict(late.answer[0]["headers"])
        assert headers[b"retry-after"] == b"5"
        await again.request(app)
        assert again.answer[0]["status"] == 200, "the memory of those that are over is free again"

    anyio.run(run)


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/webhooks", "/healthz", "/nowhere", "/v1/batches"])
def test_large_forms_are_for_routes_that_take_photos(client, path):
    answer = client.post(path, files={"photo": bytes(70_000)})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/webhooks", "/v1/subjects"])
def test_large_batches_are_for_batches(client, path):
    for kind in ("application/jsonl", "application/json"):
        assert client.post(path, content=bytes(70_000), headers={"content-type": kind}).status_code == 413


@pytest.mark.parametrize("limit", ["MAX_BODY_SECONDS", "MAX_PAUSE_SECONDS"])
def test_a_body_that_stops_coming_in_keeps_no_memory(client, store, monkeypatch, limit):
    monkeypatch.setattr(body_limits, limit, 0.2)
    monkeypatch.setattr(early_answers, "MAX_DROP_SECONDS", 0.1)

    class Stalled(Sender):
        async def receive(self) -> dict:
            return await (super().receive() if self.left > 2 else anyio.sleep_forever())

    sender = Stalled(5, **{"transfer-encoding": "chunked"})
    anyio.run(sender.request, client.app)
    problem = sender.refusal(400)
    assert problem["code"] == "malformed-request"
    assert ("not complete after" if limit == "MAX_BODY_SECONDS" else "Nothing of the body") in problem["detail"]
    assert list(store.list("")) == []


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
