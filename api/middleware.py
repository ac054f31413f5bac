"""Pure ASGI middleware: a request id for every answer, and a limit on every body before anybody reads it."""

import re
import secrets

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response
from core.errors import UploadTooLarge
from core.log import log_context

MAX_FORM_BYTES = 20 * 1024 * 1024
"""Largest multipart body: several photos together."""
MAX_JSON_BYTES = 64 * 1024
"""Largest body of any other kind."""
MAX_BATCH_BYTES = {"application/json": 1024 * 1024, "application/jsonl": 32 * 1024 * 1024}
MAX_BATCH_BYTES["application/x-ndjson"] = MAX_BATCH_BYTES["application/jsonl"]
"""Largest bodies that make a batch."""
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


class BodyLimit:
    """Refuses a body over its limit with 413, by its declared length or as soon as it has sent too much.

    What is not wanted is dropped as it arrives, never kept: a large body costs no memory.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _limit(scope["path"], headers.get("content-type", "").partition(";")[0].strip().lower())
        declared = headers.get("content-length", "0")
        body = _Body(receive, send, limit, pending=declared != "0" or "transfer-encoding" in headers)
        body.is_held_back = headers.get("expect", "").lower() == "100-continue"
        body.is_too_large = declared.isdecimal() and int(declared) > limit
        if not body.is_too_large:
            await self.app(scope, body.receive, body.send)
        if body.is_too_large:
            body.is_too_large = False
            await _refuse(scope, body.receive, body.send, limit)


def _limit(path: str, kind: str) -> int:
    if kind == "multipart/form-data":
        return MAX_FORM_BYTES
    return MAX_BATCH_BYTES.get(kind, MAX_JSON_BYTES) if path == "/v1/batches" else MAX_JSON_BYTES


class _Body:
    """The two ends of one request. When too much has come in, the application sees it closed and is not heard.

    An answer waits until the rest of the body has come in and was dropped: a client that is cut off while sending never
    reads why it was refused.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, *, pending: bool) -> None:
        self._receive, self._send = receive, send
        self._left = limit
        self._pending = pending
        self.is_held_back = False
        """The client sends nothing until it is asked to (`Expect: 100-continue`)."""
        self.is_too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and self._pending:
            self.is_held_back = False
            self._pending = message.get("more_body", False)
            self._left -= len(message.get("body", b""))
            self.is_too_large = self._left < 0
        return {"type": "http.disconnect"} if self.is_too_large else message

    async def send(self, message: Message) -> None:
        if self.is_too_large:
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


async def _refuse(scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    size = f"{limit >> 20} MB" if limit >> 20 else f"{limit >> 10} KB"
    error = UploadTooLarge(f"Send at most {size} in one request.")
    response = problem_response(error, request_id=scope.get("state", {}).get("request_id", ""))
    await response(scope, receive, send)
