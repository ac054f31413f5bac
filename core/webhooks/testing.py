"""A network for tests: names that resolve to what they are told to, connections that are counted and never made, and
somebody who is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import httpcore

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Heard(NamedTuple):
    """A message as it came."""

    headers: Mapping[str, str]
    body: bytes


class FakeResolver:
    """Answers from a table; a name with several answers gives one after the other, and stays at the last one."""

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, name: str, port: int) -> Sequence[str]:
        """See Resolver."""
        answers = self.names.get(name)
        if not answers:
            raise OSError(f"no address for {name}:{port}")
        self.asked.append(name)
        return answers[min(self.asked.count(name), len(answers)) - 1]


class FakeBackend(httpcore.AsyncNetworkBackend):
    """Notes where it was to connect to; what answers there are bytes, or an exception."""

    def __init__(self, answer: bytes | Exception = OK) -> None:
        self.answer = answer
        self.connections: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        """What TLS was asked to be sure of."""
        self.sent = b""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the protocol's
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """See AsyncNetworkBackend."""
        self.connections.append((host, port))
        if isinstance(self.answer, Exception):
            raise self.answer
        return _Stream(self, self.answer)


class _Stream(httpcore.AsyncMockStream):
    def __init__(self, backend: FakeBackend, answer: bytes) -> None:
        super().__init__([answer])
        self._backend = backend

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        self._backend.sent += buffer

    async def start_tls(
        self,
        ssl_context: Any,  # noqa: ARG002
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        self._backend.names.append(server_hostname)
        return self


@contextmanager
def receiver(heard: list[Heard], answer: Callable[[int], int] = lambda _: 200) -> Iterator[str]:
    """A server on loopback, at the URL that is given: it notes messages, and answers the n-th with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append(Heard({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(answer(len(heard)))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
