"""Limits on request bodies, as ASGI middleware: their size by route, the time they take, and the memory of all of them.

Large bodies are for the routes whose documents say that they take such a kind: photos, and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from re import Pattern

import anyio
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.authenticator import Caller
from api.server.body_memory import BodyMemory
from api.server.early_answers import has_body
from api.server.errors import MalformedRequest, problem_response, request_id_of
from core.errors import HyperDreamBoothError, UploadTooLarge

MAX_JSON_BYTES = 64 * 1024
"""Largest body of any other kind than those below."""
MAX_LARGE_BYTES = {
    "multipart/form-data": 20 * 1024 * 1024,
    "application/jsonl": 32 * 1024 * 1024,
    "application/x-ndjson": 32 * 1024 * 1024,
}
"""Largest bodies by their type, on routes that take it: the photos of one subject, the lines of a batch."""
MAX_JSON_BATCH_BYTES = 1024 * 1024
STREAMED_BYTES = 4 * 1024 * 1024
"""Memory for a body of lines, which is not held as a whole."""
MAX_BODY_SECONDS = 120.0
"""How long a body may take to arrive: a client that sends slowly must not keep its memory."""
MAX_PAUSE_SECONDS = 20.0
"""How long nothing of a body may arrive."""


class BodyLimit:
    """Refuses a body over its limit with 413, by its declared length or as soon as it has sent too much.

    A large body that is accepted takes its memory from the budget before it is read and until the request is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.memory = BodyMemory()
        self._routes: list[tuple[set[str], Pattern[str], set[str]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(headers := Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        limit = self._limit(scope, kind)
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() and "transfer-encoding" not in headers else None
        if length is not None and length > limit:
            await problem_response(_too_large(limit), request_id=request_id_of(request))(scope, receive, send)
            return
        body = _Body(receive, send, limit)
        if limit > MAX_JSON_BYTES:
            size = limit if length is None else length
            is_streamed = kind in MAX_LARGE_BYTES and kind != "multipart/form-data"
            body.memory, body.size = self.memory, min(size, STREAMED_BYTES) if is_streamed else size
            caller: Caller | None = getattr(request.state, "caller", None)
            body.tenant = caller.tenant if caller else ""
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.give_back()
        if body.refusal is not None:
            await problem_response(body.refusal, request_id=request_id_of(request))(scope, receive, send)

    def _limit(self, scope: Scope, kind: str) -> int:
        if kind not in MAX_LARGE_BYTES and kind != "application/json":
            return MAX_JSON_BYTES
        if self._routes is None:
            self._routes = _routes_with_large_bodies(scope["app"].routes)
        method, path = scope["method"], scope["path"]
        taken = next((kinds for of, at, kinds in self._routes if method in of and at.match(path)), set[str]())
        if kind == "application/json":
            return MAX_JSON_BATCH_BYTES if "application/jsonl" in taken else MAX_JSON_BYTES
        return MAX_LARGE_BYTES[kind] if kind in taken else MAX_JSON_BYTES


def _routes_with_large_bodies(routes: Sequence[BaseRoute]) -> list[tuple[set[str], Pattern[str], set[str]]]:
    """Methods, paths, and the large kinds of bodies that they take."""
    found = []
    for context in iter_route_contexts(routes):
        extra = getattr(context, "openapi_extra", None) or {}
        kinds = MAX_LARGE_BYTES.keys() & extra.get("requestBody", {}).get("content", {}).keys()
        if context.path and kinds:
            found.append((set(context.methods or ()), compile_path(context.path)[0], kinds))
    return found


def _too_large(limit: int) -> UploadTooLarge:
    size = f"{limit >> 20} MB" if limit >> 20 else f"{limit >> 10} KB"
    return UploadTooLarge(f"Send at most {size} in one request.")


class _Body:
    """The receiving and the sending end of one request. Once its body is refused, the application sees it disconnected,
    and what that answers is not sent.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send = receive, send
        self._limit = limit
        self._is_pending = True
        self._read = 0
        self._until = 0.0
        self.memory: BodyMemory | None = None
        self.tenant = ""
        self.size = 0
        """Bytes that the body needs of the memory, for this tenant."""
        self._has_taken = False
        self.refusal: HyperDreamBoothError | None = None

    async def receive(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if not self._is_pending:
            return await self._receive()
        try:
            return await self._more()
        except HyperDreamBoothError as error:
            self.refusal = error
            return {"type": "http.disconnect"}

    async def _more(self) -> Message:
        if not self._until:
            await self._begin()
        pause_ends = anyio.current_time() + MAX_PAUSE_SECONDS
        with anyio.CancelScope(deadline=min(self._until, pause_ends)) as scope:
            message = await self._receive()
        if scope.cancelled_caught and pause_ends < self._until:
            raise MalformedRequest(f"Nothing of the body came for {MAX_PAUSE_SECONDS:.0f} seconds.")
        if scope.cancelled_caught:
            raise MalformedRequest(f"The body was not complete after {MAX_BODY_SECONDS:.0f} seconds.")
        self._is_pending = message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise _too_large(self._limit)
        return message

    async def _begin(self) -> None:
        if self.memory is not None:
            await self.memory.take(self.tenant, self.size)
            self._has_taken = True
        self._until = anyio.current_time() + MAX_BODY_SECONDS

    def give_back(self) -> None:
        if self.memory is not None and self._has_taken:
            self.memory.give_back(self.tenant, self.size)

    async def send(self, message: Message) -> None:
        if self.refusal is None:
            await self._send(message)
