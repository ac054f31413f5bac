"""Idempotency-Key: a creating request that is repeated gets the response it got, for 24 hours, and creates nothing new.

A creating route takes one line:

    @router.post("", status_code=202, dependencies=[Idempotent], ...)

(after `JsonOnly`, before `Personalizes`). The header, its problems and `Idempotent-Replayed` are then in the OpenAPI
document, too. Keys belong to a tenant and a path. The same key with another request is refused; of several requests at
once one is carried out, and the others wait for its response. Only responses of success are saved: a refused request
created nothing, and may be corrected, or sent again later, with the same key.

The dependency begins a pending response (pending_responses.py) when there is a key; the middleware saves it.
"""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import Depends, Header, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.auth import Tenant
from api.server.errors import MalformedRequest
from api.server.fingerprints import content_of, is_json
from api.server.pending_responses import HEADER, PendingResponse, Replay, begin, erasable_ids, save, unlock
from core.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    InvalidInput,
    RequestInProgress,
    ResponseErased,
    StoreUnavailable,
)

ERRORS = (
    MalformedRequest,
    ResponseErased,
    RequestInProgress,
    InvalidInput,
    IdempotencyKeyReused,
    BrokerUnavailable,
    StoreUnavailable,
)
"""The errors that a request can end in because of its key."""

KeyHeader = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=r"^[!-~]{1,255}$",
        description="1 to 255 visible ASCII characters of your choice: sent again with the same request, it gets the "
        "same answer for 24 hours, and makes nothing new.",
    ),
]


async def idempotent(request: Request, tenant: Tenant, key: KeyHeader = None) -> None:
    """Let a request pass that was not carried out before. Raises Replay, and what ERRORS names."""
    if key is None:
        return
    if getattr(request.state, "body_is_streamed", False):
        request.state.idempotency_key = key
        return
    body = await _body(request)
    names_subjects = is_json(request.headers) and not getattr(request.state, "response_names_no_subject", False)
    about = erasable_ids(b" ".join([request.url.path.encode(), body if names_subjects else b""]))
    content = await content_of(request.headers, body)
    request.state.pending_response = await begin(request, tenant, key, content, about)


Idempotent = Depends(idempotent)


async def idempotent_once_read(request: Request, tenant: str, content: str) -> None:
    """The same for a body that is too large to be read twice: its route calls this when it has read it.

    The route has set `request.state.body_is_streamed` before. `content` is a hash of the body; what was made of it is
    not visible yet, and is discarded when this raises. Raises as `idempotent` does.
    """
    if key := getattr(request.state, "idempotency_key", None):
        request.state.pending_response = await begin(request, tenant, key, content, frozenset())


async def replayed(_: Request, replay: Exception) -> Response:
    """The exception handler for Replay: the saved response."""
    assert isinstance(replay, Replay)
    saved = replay.response
    return Response(saved.body, saved.status, {**saved.headers, "Idempotent-Replayed": "true"})


class SaveResponses:
    """Saves pending responses before they are sent, and releases their locks whatever has happened."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        start: Message | None = None
        pieces: list[bytes] = []

        async def save_and_send(message: Message) -> None:
            nonlocal start
            pending: PendingResponse | None = state.get("pending_response")
            if pending is None:
                await send(message)
                return
            if message["type"] == "http.response.start":
                start = message
                return
            pieces.append(message.get("body", b""))
            if start and not message.get("more_body", False):
                await save(pending, start, b"".join(pieces))
                await unlock(state.pop("pending_response"))  # before it is sent: others must not wait for a slow reader
                await send(start)
                await send({"type": "http.response.body", "body": b"".join(pieces)})

        try:
            await self.app(scope, receive, save_and_send)
        finally:
            if pending := state.pop("pending_response", None):
                with anyio.CancelScope(shield=True):
                    await unlock(pending)


async def _body(request: Request) -> bytes:
    """The whole body; it can be read again after this. Raises MalformedRequest."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None
