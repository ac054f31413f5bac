"""Over a real connection: who has no good key is answered before the body, whatever that does then."""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from api.server import early_answers
from core.errors import NoFace
from core.tenants.api_keys import ApiKeys

BODIES = {
    "nothing of it": b"Content-Length: 9000000\r\n\r\n",
    "a little": b"Content-Length: 9000000\r\n\r\n" + bytes(1000),
    "a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\n--x\r\n\r\n",
    "when it is asked for": b"Content-Length: 9000000\r\nExpect: 100-continue\r\n\r\n",
}
ROUTES = ("/v1/generations", "/v1/subjects", "/v1/batches", "/v1/nothing")


@pytest.fixture
def key(client, store):
    """With it there are keys, and it is the only one."""
    return ApiKeys(store).create("acme", "ci")[1]


@contextlib.contextmanager
def begun(address: str, path: str, rest: bytes, kind: str = "multipart/form-data; boundary=x"):
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.settimeout(10)
        head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {kind}\r\n"
        connection.sendall(head.encode() + rest)
        yield connection


def answer_of(connection: socket.socket) -> bytes:
    """What comes until the answer is whole."""
    data = b""
    while not data.endswith(b"}"):
        data += connection.recv(65536)
    return data


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("sent", BODIES)
def test_a_stranger_is_answered_before_the_body(key, address, path, sent):
    began = time.monotonic()
    with begun(address, path, BODIES[sent]) as connection:
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()
    assert time.monotonic() - began < 1


def test_then_the_connection_is_closed_whatever_comes(key, address, monkeypatch):
    monkeypatch.setattr(early_answers, "STRANGERS_DROP_SECONDS", 0.5)
    with begun(address, "/v1/subjects", BODIES["a little"]) as connection:
        answer_of(connection)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 3


def test_a_whole_upload_with_a_wrong_key_reads_why(key, address):
    files = {"photo": bytes(9_000_000)}
    answer = httpx.post(f"{address}/v1/subjects", files=files, headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_a_refused_body_that_has_come_leaves_the_connection_open(key, address):
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}) as client:
        answers = [client.post("/v1/generations", content=b"{}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [415, 415]
    assert "connection" not in answers[0].headers


def test_uploads_do_not_wait_for_strangers(key, address, photo, finder):
    """A hundred of them, who send nothing, a part of a head, or a part of a body."""
    finder.refusal = NoFace("Send one.")

    def upload() -> float:
        headers = {"authorization": f"Bearer {key}"}
        began = time.monotonic()
        padded = {"photo": photo + bytes(9_000_000)}
        answer = httpx.post(f"{address}/v1/subjects", files=padded, data={"consent": "true"}, headers=headers)
        assert answer.json()["code"] == "no-face"
        return time.monotonic() - began

    upload()
    alone = min(upload() for _ in range(2))
    url = urlsplit(address)
    with contextlib.ExitStack() as stack:
        for number in range(100):
            if number % 3:
                stack.enter_context(begun(address, ROUTES[number % 4], list(BODIES.values())[number % 4]))
            else:
                connection = stack.enter_context(socket.create_connection((url.hostname, url.port)))
                connection.sendall(b"POST /v1/subjects HTT" if number % 2 else b"")
        assert min(upload() for _ in range(4)) <= 2 * alone + 0.2
