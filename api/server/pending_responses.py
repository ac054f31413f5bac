"""Requests with an Idempotency-Key: each holds the lock of its key until its response is saved.

A request repeats the saved response where there is one; otherwise it acquires the lock, or waits for the request that
has it. `begin` returns a PendingResponse, `save` and `unlock` end it.
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
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from api.server.fingerprints import fingerprint_of
from core.errors import (
    BrokerUnavailable,
    HyperDreamBoothError,
    IdempotencyKeyReused,
    RequestInProgress,
    ResponseErased,
    StoreUnavailable,
)
from core.ids import NEW, Ids
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
    begun: SavedResponse
    """The record of the first try."""
    repeated: bool
    """Whether that was another one."""
    about: frozenset[str]
    """The ids of the subjects and webhooks that the request names."""
    lock_extension: asyncio.Task[None]
    """Extends the lock until it is canceled."""

    @property
    def ids(self) -> Ids:
        """The ids of what the request makes."""
        return Ids(self.begun.salt, self.begun.created_at, self.repeated)


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
    token, earlier = await _acquire(responses, tenant, digest, fingerprint)
    extension = asyncio.create_task(_extend_lock(responses, tenant, digest, token))
    try:
        begun = earlier
        if begun is None:
            begun = await to_thread.run_sync(responses.begin, tenant, digest, fingerprint)
    except BaseException:
        extension.cancel()
        raise
    repeated = earlier is not None
    return PendingResponse(responses, tenant, digest, fingerprint, token, begun, repeated, about, extension)


def ids_of(request: Request) -> Ids:
    """The ids of what a request makes."""
    pending: PendingResponse | None = getattr(request.state, "pending_response", None)
    return pending.ids if pending else NEW


async def note_made(request: Request, made: str) -> str:
    """Note the id of what the request is about to make. Returns that of an earlier try whose process died, or ""."""
    pending: PendingResponse | None = getattr(request.state, "pending_response", None)
    if pending is None:
        return ""
    if not pending.begun.made:
        await to_thread.run_sync(pending.responses.note_made, pending.tenant, pending.digest, pending.begun, made)
    return pending.begun.made


async def end(pending: PendingResponse, error: BaseException) -> None:
    """The request was refused, and its key may be used for another one; unless it may have been carried out in part."""
    if isinstance(error, HyperDreamBoothError | RequestValidationError) and not isinstance(
        error, BrokerUnavailable | StoreUnavailable
    ):
        with contextlib.suppress(HyperDreamBoothError):
            await to_thread.run_sync(pending.responses.end, pending.tenant, pending.digest, pending.begun)


async def save(pending: PendingResponse, answer: Response) -> None:
    """Save a response of success. If that fails the response is still sent: what it reports has been done."""
    if not 200 <= answer.status_code < 300:
        return
    body = bytes(answer.body)
    response = SavedResponse(
        fingerprint=pending.fingerprint,
        created_at=time.time(),
        status=answer.status_code,
        headers={name: answer.headers[name] for name in _SAVED_HEADERS if name in answer.headers},
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


async def _acquire(
    responses: SavedResponses, tenant: str, digest: str, fingerprint: str
) -> tuple[str, SavedResponse | None]:
    """The lock's token, when there is no saved response: at once, or when the request that had the lock has failed.

    With it the record of a try whose process died, if there was one.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        saved = await to_thread.run_sync(responses.find, tenant, digest)
        if saved and (not saved.salt or saved.fingerprint != fingerprint):
            raise _repeat(saved, fingerprint)
        token = await to_thread.run_sync(responses.lock, tenant, digest, fingerprint)
        if token:
            saved = await to_thread.run_sync(responses.find, tenant, digest)
            if saved and (not saved.salt or saved.fingerprint != fingerprint):
                await to_thread.run_sync(responses.unlock, tenant, digest, token)  # saved between the two calls above
                raise _repeat(saved, fingerprint)
            return token, saved
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
