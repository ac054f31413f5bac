"""Limits on request bodies, as ASGI middleware: their size, the time they take, and the memory of all of them."""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.errors import MalformedRequest, problem_response
from core.errors import HyperDreamBoothError, Unavailable, UploadTooLarge

MAX_FORM_BYTES = 20 * 1024 * 1024
"""Largest multipart body: the photos of one subject."""
MAX_JSON_BYTES = 64 * 1024
"""Largest body of any other kind."""
MAX_BATCH_BYTES = {"application/json": 1024 * 1024, "application/jsonl": 32 * 1024 * 1024}
MAX_BATCH_BYTES["application/x-ndjson"] = MAX_BATCH_BYTES["application/jsonl"]
"""Largest bodies that create a batch, by their type."""
BODY_MEMORY_BYTES = 48 * 1024 * 1024
"""Memory for the large bodies of all requests."""
MAX_WAIT_SECONDS = 20.0
"""How long a large body waits for memory before it is refused."""
MAX_BODY_SECONDS = 120.0
"""How long a body may take to arrive: a client that stops sending must not keep its memory."""
MAX_DROPPED_BYTES = 64 * 1024 * 1024
"""How much of a refused body is read and dropped before the connection is closed."""
MAX_DROP_SECONDS = 10.0
"""How long a refused body is read and dropped before the connection is closed."""


class MemoryBudget:
    """A number of bytes that requests take and give back, first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._queue = anyio.Lock()
        self._changed = anyio.Event()

    async def take(self, size: int) -> None:
        """Take `size` bytes, waiting for them if need be. Raises Unavailable after MAX_WAIT_SECONDS."""
        with anyio.move_on_after(MAX_WAIT_SECONDS):
            async with self._queue:
                while self._free < size:
                    self._changed = anyio.Event()
                    await self._changed.wait()
                self._free -= size
                return
        raise Unavailable("Too many uploads are coming in: send it again in a while.", retry_after=5.0)

    def give_back(self, size: int) -> None:
        """Give `size` bytes back."""
        self._free += size
        self._changed.set()


class BodyLimit:
    """Refuses a body over its limit with 413, by its declared length or as soon as it has sent too much.

    A refused body is dropped as it arrives, never kept, so it costs no memory. A large body that is accepted takes its
    memory from the budget before it is read and until the request is over; after MAX_WAIT_SECONDS in vain it gets 503.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.budget = MemoryBudget(BODY_MEMORY_BYTES)

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
            body.budget, body.size = self.budget, int(declared) if is_known else limit
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.budget.give_back(body.taken)
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
    """The receiving and the sending end of one request. Once its body is refused, the application sees it disconnected.

    An answer waits until the rest of the body has arrived and was dropped: a client whose connection is closed while it
    is sending never reads why it was refused.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, *, pending: bool) -> None:
        self._receive, self._send = receive, send
        self._limit = limit
        self._pending = pending
        self._read = 0
        self._until = 0.0
        self.budget: MemoryBudget | None = None
        self.size = self.taken = 0
        """Bytes of the budget that the body needs, and that it has taken."""
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
        if self.budget is not None:
            await self.budget.take(self.size)
            self.taken = self.size
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
