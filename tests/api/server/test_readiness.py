from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from api.server.app import create_app
from tests.api.conftest import served


def test_it_waits_for_no_other_request(settings, services, monkeypatch):
    """More heavy requests than there are threads, and none of them ends."""
    go_on = threading.Event()
    monkeypatch.setattr(services.subjects, "page", lambda *_, **__: go_on.wait(20) and [])
    monkeypatch.setattr(services.usage, "sums", lambda *_, **__: go_on.wait(20) and [])
    with served(create_app(settings, services=services)) as address, contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=address, timeout=10))
        assert client.get("/healthz").status_code == 200
        stack.callback(go_on.set)
        url = urlsplit(address)
        for path in ["subjects"] * 45 + ["usage"] * 10:
            heavy = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            heavy.sendall(f"GET /v1/{path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        time.sleep(1)
        began = time.monotonic()
        assert client.get("/readyz?exclude=workers").json()["status"] == "ready"
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("answer", ["ok", "broker-unavailable"])
def test_redis_and_the_store_are_not_asked_for_each_request(client, monkeypatch, answer):
    asked = []
    monkeypatch.setattr(
        client.app.state.readiness, "_check", lambda: asked.append(1) or {"redis": answer, "store": "ok"}
    )
    for _ in range(20):
        assert client.get("/readyz?exclude=workers").status_code == (200 if answer == "ok" else 503)
    assert len(asked) < 10
