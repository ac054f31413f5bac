# Made by `make generate` from aio/connection.py: change that.
"""Sending: the connections to the service, retries, pages of lists, streams of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Self, TypeVar

import httpx

from hyperdreambooth.client.events import StreamedJobEvent
from hyperdreambooth.client.request import ApiRequest, Page, get, page_params
from hyperdreambooth.client.retry import DEFAULT_RETRY, Attempts, Retry
from hyperdreambooth.client.waiting import EventSubscription

T = TypeVar("T")
PageT = TypeVar("PageT", bound=Page)

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 30.0


class Connection:
    """The connections to a service: the base of all methods."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is for each answer (and piece of one) in seconds; `retry` says when a request is sent again."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport)
        self._timeout = timeout
        self._retry = retry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, request: ApiRequest[T]) -> T:
        """The parsed answer. Raises Problem."""
        return request.read(self._answer(request))

    def _answer(self, request: ApiRequest[Any], *, stream: bool = False) -> httpx.Response:
        """The answer of success, after retries; with `stream` only its head is read. Raises Problem."""
        attempts = Attempts(request, self._retry)
        while True:
            try:
                built = request.build(self._http, self._timeout)
                answer = self._http.send(built, stream=stream, follow_redirects=request.is_read)
                if stream and not answer.is_success:
                    answer.read()
                pause = attempts.after_answer(answer)
            except httpx.RequestError as error:
                pause = attempts.after_error(error)
            if pause is None:
                return answer
            time.sleep(pause)

    def _pages(self, *parts: str, read: Callable[[httpx.Response], PageT], **only: str | None) -> Iterator[PageT]:
        """The pages of a list; `only` are its filters."""
        cursor: str | None = ""
        while cursor is not None:
            filters = {name: value for name, value in only.items() if value is not None}
            page = self._send(get(*parts, read=read, params=page_params(cursor or None) | filters))
            yield page
            cursor = page.next_cursor

    def _events(self, subscription: EventSubscription) -> Generator[StreamedJobEvent, None]:
        """The events of a job, over new connections when one breaks. Raises Problem and TimeoutError."""
        while True:
            try:
                answer = self._answer(subscription.connect(), stream=True)
                try:
                    subscription.check(answer)
                    for chunk in answer.iter_bytes():
                        for event in subscription.read(chunk):
                            yield event
                        if subscription.is_over:
                            return
                finally:
                    answer.close()
            except httpx.RequestError:
                pass
            pause = subscription.pause()
            if subscription.is_over:
                return
            time.sleep(pause)
