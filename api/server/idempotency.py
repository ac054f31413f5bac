"""Idempotency-Key: a creating request that is repeated gets the response it got, for 24 hours, and creates nothing new.

A creating route takes one line:

    @router.post("", status_code=202, dependencies=[Idempotent], ...)

(after `JsonOnly`, before `Personalizes`). The header, its problems and `Idempotent-Replayed` are then in the OpenAPI
document, too. Keys belong to a tenant and a path. The same key with another request is refused; of several requests at
once one is carried out, and the others wait for its response. Only responses of success are saved: a refused request
created nothing, and may be corrected, or sent again later, with the same key.

The dependency reads the saved response, or acquires the lock; saved_responses.py saves the response and releases it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect

from api.server.auth import Tenant
from api.server.errors import MalformedRequest
from api.server.fingerprints import content_of, fingerprint_of, is_json
from api.server.saved_responses import PendingResponse, Replay, erasable_ids
from core.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    InvalidInput,
    RequestInProgress,
    ResponseErased,
    StoreUnavailable,
)
from core.tenants.idempotency import EXTEND_SECONDS, SavedResponse, SavedResponses

HEADER = "Idempotency-Key"
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
WAIT_SECONDS = 10.0
"""How long a repeated request waits for the response of the first one before it gets RequestInProgress."""
POLL_SECONDS = 0.1

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
    """Let a request pass that was not carried out before; it then holds the lock of its key.

    Raises Replay, IdempotencyKeyReused, RequestInProgress, ResponseErased, BrokerUnavailable, StoreUnavailable.
    """
    if key is None:
        return
    if getattr(request.state, "body_is_streamed", False):
        request.state.idempotency_key = key
        return
    body = await _body(request)
    names_subjects = is_json(request.headers) and not getattr(request.state, "response_names_no_subject", False)
    about = erasable_ids(b" ".join([request.url.path.encode(), body if names_subjects else b""]))
    await _begin(request, tenant, key, await content_of(request.headers, body), about)


Idempotent = Depends(idempotent)


async def idempotent_once_read(request: Request, tenant: str, content: str) -> None:
    """The same for a body that is too large to be read twice: its route calls this when it has read it.

    The route has set `request.state.body_is_streamed` before. `content` is a hash of the body; what was made of it is
    not visible yet, and is discarded when this raises. Raises as `idempotent` does.
    """
    if key := getattr(request.state, "idempotency_key", None):
        await _begin(request, tenant, key, content, frozenset())


async def _begin(request: Request, tenant: str, key: str, content: Any, about: frozenset[str]) -> None:
    """Acquire the lock of the key, and note in the request's state that its response will be saved."""
    responses: SavedResponses = request.app.state.saved_responses
    fingerprint = fingerprint_of(request.url.query, content, key=key)
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n{key}".encode()).hexdigest()
    token = await _acquire(responses, tenant, digest, fingerprint)
    extension = asyncio.create_task(_extend_lock(responses, tenant, digest, token))
    request.state.pending_response = PendingResponse(tenant, digest, fingerprint, token, about, extension)


async def _extend_lock(responses: SavedResponses, tenant: str, digest: str, token: str) -> None:
    """Extend the lock again and again, until the task is canceled."""
    while True:
        await asyncio.sleep(EXTEND_SECONDS)
        with contextlib.suppress(BrokerUnavailable):
            await to_thread.run_sync(responses.extend, tenant, digest, token)


async def _acquire(responses: SavedResponses, tenant: str, digest: str, fingerprint: str) -> str:
    """The lock's token, when there is no saved response: at once, or when the request that had the lock has failed."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        if saved := await to_thread.run_sync(responses.find, tenant, digest):
            raise _repeat(saved, fingerprint)
        token = await to_thread.run_sync(responses.lock, tenant, digest, fingerprint)
        if token and (saved := await to_thread.run_sync(responses.find, tenant, digest)):
            await to_thread.run_sync(responses.unlock, tenant, digest, token)  # saved between the two calls above
            raise _repeat(saved, fingerprint)
        if token:
            return token
        await _wait(responses, tenant, digest, fingerprint, until)


async def _wait(responses: SavedResponses, tenant: str, digest: str, fingerprint: str, until: float) -> None:
    """Wait until the lock is free. Raises IdempotencyKeyReused at once, RequestInProgress at the time `until`."""
    while (other := await to_thread.run_sync(responses.in_progress, tenant, digest)) is not None:
        if other != fingerprint:
            raise _reused()
        if time.monotonic() > until:
            raise RequestInProgress("Send the same request again in a moment to get its answer.", retry_after=2.0)
        await anyio.sleep(POLL_SECONDS)


def _repeat(saved: SavedResponse, fingerprint: str) -> Exception:
    """What to raise for a request whose key has a saved response."""
    if saved.fingerprint != fingerprint:
        return _reused()
    if saved.body is None:
        return ResponseErased("What this request made was deleted; to make it anew, send it with another key.")
    return Replay(saved)


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("Send another key with another request, or the same request again.", field=HEADER)


async def _body(request: Request) -> bytes:
    """The whole body; it can be read again after this. Raises MalformedRequest."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None
