"""Pure ASGI middleware: a request id for every answer, and limits on every body before anybody reads it."""

from __future__ import annotations

import re
import secrets

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.errors import MalformedRequest, problem_response
from core.errors import HyperDreamBoothError, Unavailable, UploadTooLarge
from core.log import log_context

MAX_FORM_BYTES = 20 * 1024 * 1024
"""Largest multipart body: several photos together."""
MAX_JSON_BYTES = 64 * 1024
"""Largest body of any other kind."""
MAX_BATCH_BYTES = {"application/json": 1024 * 1024, "application/jsonl": 32 * 1024 * 1024}
MAX_BATCH_BYTES["application/x-ndjson"] = MAX_BATCH_BYTES["application/jsonl"]
"""Largest bodies that make a batch."""
MAX_HELD_BYTES = 48 * 1024 * 1024
"""How much of large bodies is in memory at the same time, of all requests together."""
MAX_WAIT_SECONDS = 20.0
"""How long a large body waits for room before it is refused."""
MAX_BODY_SECONDS = 120.0
"""How long a body may take to come in: whoever stops sending keeps no room."""
MAX_DROPPED_BYTES = 64 * 1024 * 1024
"""How much of a refused body is read and dropped before its sender is cut off."""
MAX_DROP_SECONDS = 10.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Takes `X-Request-Id` from the caller when it is harmless, makes one otherwise, and repeats it in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with log_context(request_id=request_id):
            await self.app(scope, receive, send_with_id)


class Room:
    """Memory for large bodies, first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._line = anyio.Lock()
        self._changed = anyio.Event()

    async def take(self, size: int) -> None:
        """Wait for so many bytes. Raises Unavailable when there was no room for too long."""
        with anyio.move_on_after(MAX_WAIT_SECONDS):
            async with self._line:
                while self._free < size:
                    self._changed = anyio.Event()
                    await self._changed.wait()
                self._free -= size
                return
        raise Unavailable("Too many uploads are coming in: send it again in a while.", retry_after=5.0)

    def give_back(self, size: int) -> None:
        """So many bytes are not needed any more."""
        self._free += size
        self._changed.set()


class BodyLimit:
    """Refuses a body over its limit with 413, by its declared length or as soon as it has sent too much.

    What is not wanted is dropped as it arrives, never kept: a large body costs no memory. What is wanted has its room
    from before it is read until the request is over; one that has waited for that too long is refused with 503.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.room = Room(MAX_HELD_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _limit(scope["path"], headers.get("content-type", "").partition(";")[0].strip().lower())
        declared = headers.get("content-length", "0")
        body = _Body(receive, send, limit, pending=declared != "0" or "transfer-encoding" in headers)
        body.is_held_back = headers.get("expect", "").lower() == "100-continue"
        if declared.isdecimal() and int(declared) > limit:
            await _refuse(scope, body, _too_large(limit))
            return
        if limit > MAX_JSON_BYTES:
            is_known = declared.isdecimal() and "transfer-encoding" not in headers
            body.room, body.size = self.room, int(declared) if is_known else limit
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.room.give_back(body.held)
        if body.refusal is not None:
            refusal, body.refusal = body.refusal, None
            await _refuse(scope, body, refusal)


def _limit(path: str, kind: str) -> int:
    if kind == "multipart/form-data":
        return MAX_FORM_BYTES
    return MAX_BATCH_BYTES.get(kind, MAX_JSON_BYTES) if path == "/v1/batches" else MAX_JSON_BYTES


def _too_large(limit: int) -> UploadTooLarge:
    size = f"{limit >> 20} MB" if limit >> 20 else f"{limit >> 10} KB"
    return UploadTooLarge(f"Send at most {size} in one request.")


class _Body:
    """The two ends of one request. When its body is refused, the application sees it closed and is not heard.

    An answer waits until the rest of the body has come in and was dropped: a client that is cut off while sending never
    reads why it was refused.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, *, pending: bool) -> None:
        self._receive, self._send = receive, send
        self._limit = limit
        self._pending = pending
        self._read = 0
        self._until = 0.0
        self.room: Room | None = None
        self.size = self.held = 0
        """Bytes that the body needs of the room, and that it has."""
        self.is_held_back = False
        """The client sends nothing until it is asked to (`Expect: 100-continue`)."""
        self.refusal: HyperDreamBoothError | None = None

    async def receive(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if not self._pending:
            return await self._receive()
        try:
            return await self._more()
        except HyperDreamBoothError as error:
            self.refusal = error
            return {"type": "http.disconnect"}

    async def _more(self) -> Message:
        if not self._until:
            await self._begin()
        with anyio.CancelScope(deadline=self._until) as scope:
            message = await self._receive()
        if scope.cancelled_caught:
            raise MalformedRequest(f"The body was not complete after {MAX_BODY_SECONDS:.0f} seconds.")
        self.is_held_back = False
        self._pending = message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise _too_large(self._limit)
        return message

    async def _begin(self) -> None:
        if self.room is not None:
            await self.room.take(self.size)
            self.held = self.size
        self._until = anyio.current_time() + MAX_BODY_SECONDS

    async def send(self, message: Message) -> None:
        if self.refusal is not None:
            return
        if message["type"] == "http.response.start" and self._pending and not self.is_held_back:
            await self._drop_rest()
        await self._send(message)

    async def _drop_rest(self) -> None:
        dropped = 0
        with anyio.move_on_after(MAX_DROP_SECONDS):
            while self._pending and dropped < MAX_DROPPED_BYTES:
                message = await self._receive()
                dropped += len(message.get("body", b""))
                self._pending = message["type"] == "http.request" and message.get("more_body", False)


async def _refuse(scope: Scope, body: _Body, error: HyperDreamBoothError) -> None:
    response = problem_response(error, request_id=scope.get("state", {}).get("request_id", ""))
    await response(scope, body.receive, body.send)
