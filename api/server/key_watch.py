"""Answers that take long (event streams, `Prefer: wait`, downloads) end when their caller's key is no longer good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from anyio import CancelScope
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.errors import problem_response
from core.errors import HyperDreamBoothError

CHECK_SECONDS = 1.0
"""How often a key is checked while an answer takes long."""

Refusal = Callable[[], Awaitable[HyperDreamBoothError | None]]
"""Why the caller is no longer served, or None."""


async def run_while(app: ASGIApp, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application, and end its answer soon after there is a refusal.

    An answer that was not begun becomes the refusal; a stream ends.
    """
    answer = _Answer(send)
    with CancelScope() as running:
        watch = _Watch(refusal, running)
        try:
            await app(scope, receive, answer.send)
        finally:
            watch.end()
    if running.cancelled_caught and watch.refused is not None:
        await answer.end(watch.refused, scope, receive)


class _Watch:
    """Checks again and again, in a task of its own; most answers are given before that begins."""

    def __init__(self, refusal: Refusal, running: CancelScope) -> None:
        self._refusal, self._running = refusal, running
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._begin)
        self.refused: HyperDreamBoothError | None = None

    def end(self) -> None:
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="key-watch")

    async def _run(self) -> None:
        while self.refused is None:
            self.refused = await self._refusal()
            await asyncio.sleep(0 if self.refused else CHECK_SECONDS)
        self._running.cancel()


class _Answer:
    """What has been sent of an answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_begun = self._is_over = self._has_length = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_begun = True
            self._has_length = "content-length" in Headers(raw=message["headers"])
        elif message["type"] == "http.response.body":
            self._is_over = not message.get("more_body", False)
        await self._send(message)

    async def end(self, refused: HyperDreamBoothError, scope: Scope, receive: Receive) -> None:
        """With its length announced, there is no other end than that of the connection, which the server sees to."""
        if not self._is_begun:
            request_id = scope.get("state", {}).get("request_id", "")
            await problem_response(refused, request_id=request_id)(scope, receive, self._send)
        elif not self._is_over and not self._has_length:
            await self._send({"type": "http.response.body", "body": b""})
