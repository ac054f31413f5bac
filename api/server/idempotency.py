"""Idempotency-Key: a creating request that is repeated gets the response it got, for 24 hours, and creates nothing new.

A creating route takes two lines:

    router = APIRouter(..., route_class=IdempotentRoute)

    @router.post("", status_code=202, dependencies=[Idempotent], ...)

(after `JsonOnly`, before `Personalizes`). The header, its problems and `Idempotent-Replayed` are then in the OpenAPI
document, too. Keys belong to a tenant and a path. The same key with another request is refused; of several requests at
once one is carried out, and the others wait for its response. Only responses of success are saved: a refused request
created nothing, and may be corrected, or sent again later, with the same key.

The dependency begins a pending response (pending_responses.py) when there is a key; the route class saves it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio
from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from api.server.auth import Tenant
from api.server.errors import MalformedRequest
from api.server.fingerprints import content_of, is_json
from api.server.pending_responses import HEADER, Replay, begin, end, erasable_ids, save, unlock
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


class IdempotentRoute(APIRoute):
    """A route that saves a pending response before it is sent, and releases its lock whatever has happened.

    The lock is released before the response is sent, too: others must not wait for a slow reader.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def handle_and_save(request: Request) -> Response:
            state = request.scope.setdefault("state", {})
            try:
                response = await handle(request)
                if pending := state.get("pending_response"):
                    await save(pending, response)
                return response
            except BaseException as error:
                if pending := state.get("pending_response"):
                    with anyio.CancelScope(shield=True):
                        await end(pending, error)
                raise
            finally:
                if pending := state.pop("pending_response", None):
                    with anyio.CancelScope(shield=True):
                        await unlock(pending)

        return handle_and_save


async def _body(request: Request) -> bytes:
    """The whole body; it can be read again after this. Raises MalformedRequest."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None
