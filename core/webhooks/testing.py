"""A fake network for tests: a resolver with a table, connections that are counted and never made, and a receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import httpcore

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class ReceivedMessage(NamedTuple):
    """A message as the receiver got it."""

    headers: Mapping[str, str]
    body: bytes


class FakeResolver:
    """Resolves from a table; a name with several answers gets one after the other, and then always the last one."""

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self.names = names
        self.lookups: list[str] = []

    def __call__(self, name: str, port: int) -> Sequence[str]:
        """See Resolver."""
        answers = self.names.get(name)
        if not answers:
            raise OSError(f"no address for {name}:{port}")
        self.lookups.append(name)
        return answers[min(self.lookups.count(name), len(answers)) - 1]


class FakeBackend(httpcore.AsyncNetworkBackend):
    """Records where it was told to connect; it answers with bytes, or raises an exception."""

    def __init__(self, answer: bytes | Exception = OK) -> None:
        self.answer = answer
        self.connections: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        """The host names that TLS was to verify."""
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
def receiver(received: list[ReceivedMessage], answer: Callable[[int], int] = lambda _: 200) -> Iterator[str]:
    """Run a server on loopback, and yield its URL: it appends messages to `received`; `answer` gives statuses."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ReceivedMessage({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(answer(len(received)))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
