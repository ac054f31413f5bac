"""A sender that hangs up: the work for its photo ends, and nothing is stored."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from api.server.decoding import decoder as decoding
from api.server.decoding.decoder import PhotoDecoder
from tests.api.server.decoding.pictures import form

pytestmark = pytest.mark.process


@pytest.fixture
def endless(client, monkeypatch, tmp_path) -> PhotoDecoder:
    """A decoder whose process says that it has started, and never ends."""
    program = f"import pathlib, time; pathlib.Path({str(tmp_path / 'started')!r}).touch(); time.sleep(60)"
    monkeypatch.setattr(decoding, "_PROGRAM", (sys.executable, "-c", program))
    client.app.state.decoder = PhotoDecoder()
    return client.app.state.decoder


def wait_for(condition) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def begun(monkeypatch) -> list[decoding._Child]:
    """The processes that have been started."""
    begun: list[decoding._Child] = []
    real = decoding._Child
    monkeypatch.setattr(decoding, "_Child", lambda: begun.append(real()) or begun[-1])
    return begun


@contextmanager
def sending(address: str, photo: bytes) -> Iterator[None]:
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port)) as sender:
        sender.sendall(form(photo, host=url.netloc))
        yield


def test_decoding_ends_with_the_connection(endless, address, photo, store, begun, tmp_path):
    with sending(address, photo):
        wait_for((tmp_path / "started").exists)
        (child,) = begun
        assert child.is_alive
    assert wait_for(lambda: not child.is_alive) < 2
    assert list(store.list("")) == []


def test_photos_that_still_wait_are_not_begun(endless, address, photo, client, begun):
    """There is one place for decoding, which another photo has."""
    limiter = client.app.state.decoders
    with sending(address, photo):
        wait_for(lambda: begun)
        with sending(address, photo):
            wait_for(lambda: limiter.statistics().tasks_waiting)
        time.sleep(0.2)
    wait_for(lambda: not limiter.borrowed_tokens)
    assert len(begun) == 1
