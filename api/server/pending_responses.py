"""Requests with an Idempotency-Key: each holds the lock of its key until its response is saved.

A request first looks for a saved response to repeat; otherwise it acquires the lock, or waits for the request that has
it. `begin` leaves a PendingResponse, `save` and `unlock` end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Message

from api.server.fingerprints import fingerprint_of
from core.errors import (
    BrokerUnavailable,
    HyperDreamBoothError,
    IdempotencyKeyReused,
    RequestInProgress,
    ResponseErased,
)
from core.tenants.idempotency import EXTEND_SECONDS, SavedResponse, SavedResponses

HEADER = "Idempotency-Key"
WAIT_SECONDS = 10.0
"""How long a repeated request waits for the response of the first one before it gets RequestInProgress."""
POLL_SECONDS = 0.1
_SAVED_HEADERS = ("content-type", "location")
_ERASABLE_ID = re.compile(rb"(?:sub|whk)_[0-9a-z]{25}")
"""Ids of what can be deleted: the saved responses that name it are erased with it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingResponse:
    """A request that has the lock of its key; its response will be saved."""

    responses: SavedResponses
    tenant: str
    digest: str
    fingerprint: str
    token: str
    about: frozenset[str]
    """The ids of the subjects and webhooks that the request names."""
    lock_extension: asyncio.Task[None]
    """Extends the lock until it is canceled."""


class Replay(Exception):
    """The request was carried out before: `response` is what was answered then."""

    def __init__(self, response: SavedResponse) -> None:
        self.response = response


def erasable_ids(data: bytes) -> frozenset[str]:
    """The ids of subjects and webhooks in a piece of a request or a response."""
    return frozenset(found.decode() for found in _ERASABLE_ID.findall(data))


async def begin(request: Request, tenant: str, key: str, content: Any, about: frozenset[str]) -> PendingResponse:
    """Acquire the lock of the key for a request with this content.

    Raises Replay, IdempotencyKeyReused, RequestInProgress, ResponseErased, BrokerUnavailable, StoreUnavailable.
    """
    responses: SavedResponses = request.app.state.saved_responses
    fingerprint = fingerprint_of(request.url.query, content, key=key)
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n{key}".encode()).hexdigest()
    token = await _acquire(responses, tenant, digest, fingerprint)
    extension = asyncio.create_task(_extend_lock(responses, tenant, digest, token))
    return PendingResponse(responses, tenant, digest, fingerprint, token, about, extension)


async def save(pending: PendingResponse, start: Message, body: bytes) -> None:
    """Save a response of success. If that fails the response is still sent: what it reports has been done."""
    if not 200 <= start["status"] < 300:
        return
    headers = Headers(raw=start["headers"])
    response = SavedResponse(
        fingerprint=pending.fingerprint,
        created_at=time.time(),
        status=start["status"],
        headers={name: headers[name] for name in _SAVED_HEADERS if name in headers},
        body=body.decode(),
    )
    about = pending.about | erasable_ids(body)
    try:
        await to_thread.run_sync(partial(pending.responses.save, pending.tenant, pending.digest, response, about))
    except HyperDreamBoothError:
        _log.warning("idempotency.save_failed", exc_info=True)


async def unlock(pending: PendingResponse) -> None:
    """Release the lock. If that fails it expires by itself."""
    pending.lock_extension.cancel()
    try:
        await to_thread.run_sync(pending.responses.unlock, pending.tenant, pending.digest, pending.token)
    except HyperDreamBoothError:
        _log.warning("idempotency.unlock_failed", exc_info=True)


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
