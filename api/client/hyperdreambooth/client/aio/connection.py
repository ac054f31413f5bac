"""Sending: the connections to the service, retries, pages of lists, streams of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Self, TypeVar

import anyio
import httpx

from hyperdreambooth.client.events import StreamedJobEvent
from hyperdreambooth.client.request import ApiRequest, Page, get, page_params
from hyperdreambooth.client.retry import DEFAULT_RETRY, Attempts, Retry
from hyperdreambooth.client.waiting import EventSubscription

T = TypeVar("T")
PageT = TypeVar("PageT", bound=Page)

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 30.0


class AsyncConnection:
    """The connections to a service: the base of all methods."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`timeout` is for each answer (and piece of one) in seconds; `retry` says when a request is sent again."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport)
        self._timeout = timeout
        self._retry = retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, request: ApiRequest[T]) -> T:
        """The parsed answer. Raises Problem."""
        return request.read(await self._answer(request))

    async def _answer(self, request: ApiRequest[Any], *, stream: bool = False) -> httpx.Response:
        """The answer of success, after retries; with `stream` only its head is read. Raises Problem."""
        attempts = Attempts(request, self._retry)
        while True:
            try:
                built = request.build(self._http, self._timeout)
                answer = await self._http.send(built, stream=stream, follow_redirects=request.is_read)
                if stream and not answer.is_success:
                    await answer.aread()
                pause = attempts.after_answer(answer)
            except httpx.RequestError as error:
                pause = attempts.after_error(error)
            if pause is None:
                return answer
            await anyio.sleep(pause)

    async def _pages(
        self, *parts: str, read: Callable[[httpx.Response], PageT], **only: str | None
    ) -> AsyncIterator[PageT]:
        """The pages of a list; `only` are its filters."""
        cursor: str | None = ""
        while cursor is not None:
            filters = {name: value for name, value in only.items() if value is not None}
            page = await self._send(get(*parts, read=read, params=page_params(cursor or None) | filters))
            yield page
            cursor = page.next_cursor

    async def _events(self, subscription: EventSubscription) -> AsyncGenerator[StreamedJobEvent, None]:
        """The events of a job, over new connections when one breaks. Raises Problem and TimeoutError."""
        while True:
            try:
                answer = await self._answer(subscription.connect(), stream=True)
                try:
                    subscription.check(answer)
                    async for chunk in answer.aiter_bytes():
                        for event in subscription.read(chunk):
                            yield event
                        if subscription.is_over:
                            return
                finally:
                    await answer.aclose()
            except httpx.RequestError:
                pass
            pause = subscription.pause()
            if subscription.is_over:
                return
            await anyio.sleep(pause)
