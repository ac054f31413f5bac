"""Connections that wait for ever do not stay, and keep no one else from coming in."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import Response

from api.server import connections
from api.server.connections import BoundedProtocol
from tests.api.conftest import served

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
BEGUN = {
    "nothing": b"",
    "half a line": b"GET /hea",
    "half a head": HEAD,
    "a request, and half of one": HEAD + b"\r\n" + HEAD,
}


@pytest.fixture
def bounded(client, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)
    with served(client.app, http=BoundedProtocol) as url:
        yield url


def connected(address: str) -> socket.socket:
    url = urlsplit(address)
    connection = socket.create_connection((url.hostname, url.port))
    connection.settimeout(10)
    return connection


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("sent", BEGUN)
def test_a_head_that_does_not_come_is_not_waited_for(bounded, sent):
    with connected(bounded) as connection:
        connection.sendall(BEGUN[sent])
        assert seconds_until_closed(connection) < 3


def test_a_head_that_drips_is_not_waited_for(bounded):
    began = time.monotonic()
    with connected(bounded) as connection, suppress(ConnectionError):
        while time.monotonic() - began < 5:
            connection.sendall(b"G")
            time.sleep(0.05)
    assert time.monotonic() - began < 4


def test_answers_may_take_longer_than_heads(bounded, client):
    with httpx.Client(base_url=bounded) as http:
        for _ in range(3):
            assert http.get("/healthz").status_code == 200
            time.sleep(0.2)
        answer = http.get("/v1/jobs/job_" + "0" * 25, headers={"prefer": "wait=1"})
        assert answer.status_code == 404


def test_nine_hundred_idle_connections_do_not_stay(bounded):
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(bounded)) for _ in range(900)]
        began = time.monotonic()
        assert httpx.get(f"{bounded}/healthz", timeout=5).status_code == 200
        for connection in idle:
            seconds_until_closed(connection)
        assert time.monotonic() - began < 5


def test_the_one_that_has_waited_longest_makes_way(client, monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "most_connections", 10)
    with served(client.app, http=BoundedProtocol) as address, ExitStack() as stack:
        waiting = [stack.enter_context(connected(address)) for _ in range(10)]
        for _ in range(3):
            assert httpx.get(f"{address}/healthz").status_code == 200
        assert seconds_until_closed(waiting[0]) < 2
        waiting[-1].sendall(HEAD + b"\r\n")
        assert waiting[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_who_does_not_read_an_answer_is_not_waited_for(bounded, client):
    async def much(_):
        return Response(bytes(30_000_000))

    client.app.add_route("/much", much)

    with connected(bounded) as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2)
        received = 0
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += len(piece)
        assert received < 30_000_000


def test_files_are_allowed_for_as_many_connections_as_there_may_be():
    assert 16 <= connections.open_files() <= connections.MOST_CONNECTIONS
