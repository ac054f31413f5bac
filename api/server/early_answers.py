"""Answers that come before the whole body has: they are sent at once, and the rest of the body is read and dropped.

A client whose connection is closed while it is sending may never read why it was refused; one that has stopped sending
must not keep the connection.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DROPPED_BYTES = 64 * 1024 * 1024
"""How much of a body is dropped before the connection is closed."""
MAX_DROP_SECONDS = 10.0
"""How long a body is dropped before the connection is closed."""
STRANGERS_DROPPED_BYTES = 20 * 1024 * 1024
STRANGERS_DROP_SECONDS = 5.0
"""The same for those without a good key."""


class EarlyAnswers:
    """Sends an early answer whole, and ends it when the rest of the body was dropped, with the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and has_body(Headers(scope=scope)):
            exchange = _Exchange(scope, receive, send)
            await self.app(scope, exchange.receive, exchange.send)
        else:
            await self.app(scope, receive, send)


def has_body(headers: Headers) -> bool:
    """Whether a request comes with a body."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


class _Exchange:
    """The receiving and the sending end of a request with a body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._is_pending = True
        # A client that waits to be asked (100-continue) sends nothing that could be dropped.
        self._is_held_back = Headers(scope=scope).get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_held_back = False
        self._is_pending = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if not self._is_pending:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
        elif message.get("more_body", False) or self._is_held_back:
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            await self._send({"type": "http.response.body", "body": b""})

    async def _drop_rest(self) -> None:
        is_stranger = "caller" not in self._scope.get("state", {})
        seconds = STRANGERS_DROP_SECONDS if is_stranger else MAX_DROP_SECONDS
        left = STRANGERS_DROPPED_BYTES if is_stranger else MAX_DROPPED_BYTES
        with anyio.move_on_after(seconds):
            while self._is_pending and left > 0:
                left -= len((await self.receive()).get("body", b""))
