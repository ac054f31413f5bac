"""The middleware of idempotent requests: it saves their responses, and answers repeated requests with them.

The dependency in idempotency.py has acquired the lock and left a PendingResponse in the request's state. The response
is saved on its way out, and the lock is released whatever has happened.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_thread
from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import HyperDreamBoothError
from core.tenants.idempotency import SavedResponse, SavedResponses

_SAVED_HEADERS = ("content-type", "location")
_ERASABLE_ID = re.compile(rb"(?:sub|whk)_[0-9a-z]{25}")
"""Ids of what can be deleted: the saved responses that name it are erased with it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingResponse:
    """The request holds the lock of its Idempotency-Key, and its response will be saved."""

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


async def replayed(_: Request, replay: Exception) -> Response:
    """The exception handler for Replay: the saved response."""
    assert isinstance(replay, Replay)
    saved = replay.response
    return Response(saved.body, saved.status, {**saved.headers, "Idempotent-Replayed": "true"})


class SaveResponses:
    """Saves the responses of idempotent requests before they are sent."""

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
                await _save(scope, pending, start, b"".join(pieces))
                await _unlock(scope, pending)  # before it is sent: repeated requests must not wait for a slow reader
                await send(start)
                await send({"type": "http.response.body", "body": b"".join(pieces)})

        try:
            await self.app(scope, receive, save_and_send)
        finally:
            if pending := state.get("pending_response"):
                with anyio.CancelScope(shield=True):
                    await _unlock(scope, pending)


async def _save(scope: Scope, pending: PendingResponse, start: Message, body: bytes) -> None:
    """Save a response of success. If that fails it is still sent: what it reports has been done."""
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
    responses: SavedResponses = scope["app"].state.saved_responses
    try:
        await to_thread.run_sync(partial(responses.save, pending.tenant, pending.digest, response, about))
    except HyperDreamBoothError:
        _log.warning("idempotency.save_failed", exc_info=True)


async def _unlock(scope: Scope, pending: PendingResponse) -> None:
    del scope["state"]["pending_response"]
    pending.lock_extension.cancel()
    responses: SavedResponses = scope["app"].state.saved_responses
    try:
        await to_thread.run_sync(responses.unlock, pending.tenant, pending.digest, pending.token)
    except HyperDreamBoothError:
        _log.warning("idempotency.unlock_failed", exc_info=True)
