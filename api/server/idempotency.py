"""Idempotency-Key: a creating request that is sent again gets the answer it got, for 24 hours, and makes nothing new.

A creating route takes one line:

    @router.post("", status_code=202, dependencies=[Idempotent], ...)

(after `JsonOnly`, before `Personalizes`). The header, its problems and `Idempotent-Replayed` are then in the OpenAPI
document, too. Keys belong to a tenant and a path. The same key with another request is refused; of many at once one is
carried out, and the others wait for its answer. Only answers of success are remembered: what was refused made nothing,
and a request that is put right, or comes at a better time, may keep its key.

The dependency looks for an answer, takes the lock and holds it; the middleware keeps the answer on its way out, and
gives the lock back whatever has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import Depends, Header, Request, Response
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.auth import Tenant
from api.server.errors import MalformedRequest
from core.errors import (
    AnswerErased,
    BrokerUnavailable,
    HyperDreamBoothError,
    IdempotencyKeyReused,
    InvalidInput,
    RequestInProgress,
    StoreUnavailable,
)
from core.tenants.idempotency import HOLD_SECONDS, Answer, Answers

HEADER = "Idempotency-Key"
ERRORS = (
    MalformedRequest,
    AnswerErased,
    RequestInProgress,
    InvalidInput,
    IdempotencyKeyReused,
    BrokerUnavailable,
    StoreUnavailable,
)
"""What a request can end in because of its key."""
WAIT_SECONDS = 10.0
"""How long a request waits for the answer to its twin, before it is told to come back."""
LOOK_SECONDS = 0.1
_KEPT_HEADERS = ("content-type", "location")
_MAX_FORM_BYTES = 32 * 1024 * 1024
_THING_ID = re.compile(rb"(?:sub|whk)_[0-9a-z]{25}")
"""What can be deleted, and then takes the answers that name it along."""

_log = logging.getLogger(__name__)

KeyHeader = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=r"^[!-~]{1,255}$",
        description="1 to 255 visible ASCII characters of your choice: sent again with the same request, it gets the "
        "same answer for 24 hours, and makes nothing new.",
    ),
]


@dataclass(frozen=True)
class Promise:
    """This request is carried out under a key, and its answer will be remembered."""

    tenant: str
    digest: str
    fingerprint: str
    token: str
    about: frozenset[str]
    """The subjects and webhooks that the request names."""


class Replay(Exception):
    """There is an answer to this request already."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


async def idempotent(request: Request, tenant: Tenant, key: KeyHeader = None) -> None:
    """Let a request through that was not carried out before.

    Raises Replay, IdempotencyKeyReused, RequestInProgress, AnswerErased, BrokerUnavailable, StoreUnavailable.
    """
    if key is None:
        return
    if getattr(request.state, "body_is_streamed", False):
        request.state.idempotency_key = key
        return
    body = await _body(request)
    names_somebody = _is_json(request) and not getattr(request.state, "answer_names_nobody", False)
    named = b" ".join([request.url.path.encode(), body if names_somebody else b""])
    about = frozenset(found.decode() for found in _THING_ID.findall(named))
    await _promise(request, tenant, key, await _content(request.headers, body), about)


Idempotent = Depends(idempotent)


async def idempotent_once_read(request: Request, tenant: str, content: str) -> None:
    """The same for a body that is too large to be read twice: its route calls this when it has read it.

    The route has set `request.state.body_is_streamed` before. `content` is a hash of the body; what was made of it is
    not to be seen yet, and is discarded when this raises. Raises as `idempotent` does.
    """
    if key := getattr(request.state, "idempotency_key", None):
        await _promise(request, tenant, key, content, frozenset())


async def _promise(request: Request, tenant: str, key: str, content: Any, about: frozenset[str]) -> None:
    answers: Answers = request.app.state.answers
    fingerprint = _fingerprint(request, key, content)
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n{key}".encode()).hexdigest()
    token = await _first(answers, tenant, digest, fingerprint)
    promise = Promise(tenant, digest, fingerprint, token, about)
    request.state.promise = promise
    request.state.holding = asyncio.create_task(_hold(answers, promise))


async def _hold(answers: Answers, promise: Promise) -> None:
    """Keep the lock as long as the request is carried out, however long that takes."""
    while True:
        await asyncio.sleep(HOLD_SECONDS)
        with contextlib.suppress(BrokerUnavailable):
            await to_thread.run_sync(answers.hold, promise.tenant, promise.digest, promise.token)


async def replayed(_: Request, replay: Exception) -> Response:
    """The exception handler for Replay: the remembered answer."""
    assert isinstance(replay, Replay)
    answer = replay.answer
    return Response(answer.body, answer.status, {**answer.headers, "Idempotent-Replayed": "true"})


class RememberAnswers:
    """Keeps the answers that were promised to be remembered, before they are sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        start: Message | None = None
        pieces: list[bytes] = []

        async def send_and_keep(message: Message) -> None:
            nonlocal start
            promise: Promise | None = state.get("promise")
            if promise is None:
                await send(message)
                return
            if message["type"] == "http.response.start":
                start = message
                return
            pieces.append(message.get("body", b""))
            if start and not message.get("more_body", False):
                await _keep(scope, promise, start, b"".join(pieces))
                await _unlock(scope, promise)  # before it is sent: its twins must not wait for a slow reader
                await send(start)
                await send({"type": "http.response.body", "body": b"".join(pieces)})

        try:
            await self.app(scope, receive, send_and_keep)
        finally:
            if promise := state.get("promise"):
                state["holding"].cancel()
                with anyio.CancelScope(shield=True):
                    await _unlock(scope, promise)


async def _first(answers: Answers, tenant: str, digest: str, fingerprint: str) -> str:
    """The lock, when there is no answer yet: at once, or when the one who had it has failed."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        if answer := await to_thread.run_sync(answers.find, tenant, digest):
            raise _repeat(answer, fingerprint)
        token = await to_thread.run_sync(answers.lock, tenant, digest, fingerprint)
        if token and (answer := await to_thread.run_sync(answers.find, tenant, digest)):
            await to_thread.run_sync(answers.unlock, tenant, digest, token)  # answered between the two looks
            raise _repeat(answer, fingerprint)
        if token:
            return token
        await _wait(answers, tenant, digest, fingerprint, until)


async def _wait(answers: Answers, tenant: str, digest: str, fingerprint: str, until: float) -> None:
    """Until the lock is free. Raises IdempotencyKeyReused at once, RequestInProgress when time is up."""
    while (other := await to_thread.run_sync(answers.in_progress, tenant, digest)) is not None:
        if other != fingerprint:
            raise _reused()
        if time.monotonic() > until:
            raise RequestInProgress("Send the same request again in a moment to get its answer.", retry_after=2.0)
        await anyio.sleep(LOOK_SECONDS)


def _repeat(answer: Answer, fingerprint: str) -> Exception:
    if answer.fingerprint != fingerprint:
        return _reused()
    if answer.body is None:
        return AnswerErased("What this request made was deleted; to make it anew, send it with another key.")
    return Replay(answer)


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("Send another key with another request, or the same request again.", field=HEADER)


async def _body(request: Request) -> bytes:
    """All of the body; it stays there for those who read it after this."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None


def _fingerprint(request: Request, key: str, content: Any) -> str:
    """What the request asks for, as a hash that is keyed with what only its sender knows."""
    asked = json.dumps([request.url.query, content], sort_keys=True)
    return hmac.digest(key.encode(), asked.encode("utf-8", "surrogatepass"), "sha256").hex()


async def _content(headers: Headers, body: bytes) -> Any:
    """A body as what it says: JSON without its spacing, a form without its boundary and its files' names."""
    kind = headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        parts = await _parts(headers, body)
        if parts is not None:
            return parts
    if "json" in kind.partition(";")[0]:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    return hashlib.sha256(body).hexdigest()


async def _parts(headers: Headers, body: bytes) -> list[tuple[str, str]] | None:
    """Name and hash of each part of a form, in order; None when it is no form (which its route will say)."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, whole(), max_part_size=_MAX_FORM_BYTES)
    parser.spool_max_size = _MAX_FORM_BYTES  # a photo never goes to a temporary file
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError):
        return None
    parts = []
    for name, value in form.multi_items():
        data = await value.read() if isinstance(value, UploadFile) else value.encode("utf-8", "surrogatepass")
        parts.append((name, hashlib.sha256(data).hexdigest()))
    await form.close()
    return parts


async def _keep(scope: Scope, promise: Promise, start: Message, body: bytes) -> None:
    """Remember an answer of success. If that fails the answer is still sent: what it tells of has been made."""
    if not 200 <= start["status"] < 300:
        return
    headers = Headers(raw=start["headers"])
    answer = Answer(
        fingerprint=promise.fingerprint,
        created_at=time.time(),
        status=start["status"],
        headers={name: headers[name] for name in _KEPT_HEADERS if name in headers},
        body=body.decode(),
    )
    about = promise.about | {found.decode() for found in _THING_ID.findall(body)}
    answers: Answers = scope["app"].state.answers
    try:
        await to_thread.run_sync(partial(answers.remember, promise.tenant, promise.digest, answer, about))
    except HyperDreamBoothError:
        _log.warning("idempotency.store_failed", exc_info=True)


async def _unlock(scope: Scope, promise: Promise) -> None:
    del scope["state"]["promise"]
    answers: Answers = scope["app"].state.answers
    try:
        await to_thread.run_sync(answers.unlock, promise.tenant, promise.digest, promise.token)
    except HyperDreamBoothError:
        _log.warning("idempotency.unlock_failed", exc_info=True)


def _is_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "").partition(";")[0]
