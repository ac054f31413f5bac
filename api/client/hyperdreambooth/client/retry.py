"""When a request is sent again, and after which pause."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from hyperdreambooth.client.problem import problem_of, unreachable
from hyperdreambooth.client.request import ApiRequest

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The service has not seen the request: any may be sent again."""
CUT_OFF = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
"""The service may have seen the request. Other errors are the caller's own, such as an address that is none."""
NOTHING_TAKEN = frozenset({429})
"""Statuses after which any request may be sent again."""
FOR_A_WHILE = frozenset({502, 503, 504})
"""Statuses after which a request may be sent again that does no harm when it is carried out twice."""


@dataclass(frozen=True)
class Retry:
    """How often a request is sent again, and after which pauses. They double, with random jitter.

    `Retry-After` is honoured, unless it is longer than `patience`: then the problem is raised at once.
    """

    tries: int = 4
    """How often one request is sent at most."""
    first: float = 0.5
    """The first pause in seconds."""
    longest: float = 8.0
    """The longest pause in seconds that is not asked for by the service."""
    patience: float = 60.0
    """The longest pause in seconds that the service may ask for."""


DEFAULT_RETRY = Retry()


class Attempts:
    """The tries of one request: whether there is another one, and after which pause."""

    def __init__(self, request: ApiRequest[Any], retry: Retry) -> None:
        self._request = request
        self._retry = retry
        self._tries = 0

    def after_error(self, error: httpx.RequestError) -> float:
        """The pause in seconds, after a try that got no answer. Raises Problem when it is not to be sent again."""
        self._tries += 1
        again = isinstance(error, NEVER_SENT) or (self._request.repeatable and isinstance(error, CUT_OFF))
        if self._tries >= self._retry.tries or not again:
            raise unreachable(error) from error
        return self._pause()

    def after_answer(self, answer: httpx.Response) -> float | None:
        """The pause in seconds; None when the answer is good. Raises Problem when it is not to be sent again.

        A 409 with `Retry-After` is a request with the same Idempotency-Key that is still being carried out.
        """
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return None
        self._tries += 1
        wanted = retry_after(answer)
        for_a_while = answer.status_code in FOR_A_WHILE or (answer.status_code == 409 and wanted is not None)
        again = answer.status_code in NOTHING_TAKEN or (self._request.repeatable and for_a_while)
        if self._tries >= self._retry.tries or not again or (wanted or 0) > self._retry.patience:
            raise problem_of(answer)
        return self._pause() if wanted is None else wanted + random.uniform(0, min(wanted, 1.0) / 2)

    def _pause(self) -> float:
        """The next pause in seconds: half of it fixed, half of it random."""
        whole: float = min(self._retry.longest, self._retry.first * 2 ** (self._tries - 1))
        return whole * random.uniform(0.5, 1.0)


def retry_after(answer: httpx.Response) -> float | None:
    """The seconds of a Retry-After header, which may also be a date; None without a good one."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
