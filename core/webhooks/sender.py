"""One attempt: resolve, check, connect to the checked address, send, read the status. No redirects, no proxies.

httpcore is used directly: httpx would follow the environment's proxies and log URLs, and all that is needed here is one
request over a connection to an address that was chosen beforehand.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import certifi
import httpcore
from anyio import fail_after, to_thread

from core.errors import WebhookRefused
from core.webhooks.addresses import BoundedResolver, CheckedUrl, ParsedUrl, Resolver, check_url
from core.webhooks.records import Attempt

TIMEOUT_SECONDS = 10.0
"""For the whole attempt, from resolving the name to the answer's status."""
MOST_LOOKUPS = 32
"""Names that are looked up at once, including those whose attempt has timed out."""
CONNECT_SECONDS = 3.0
"""For connecting to one address when there are others to try."""
MOST_BYTES = 4096
"""So much of an answer's body is read, and dropped, so that the connection closes in good order."""

Clock: TypeAlias = Callable[[], float]


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to the addresses of one checked URL, whatever its name resolves to by now."""

    def __init__(self, checked: CheckedUrl, backend: httpcore.AsyncNetworkBackend) -> None:
        """`backend` makes the connections, to addresses only."""
        self._checked = checked
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the protocol's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See AsyncNetworkBackend. The addresses are tried one after the other."""
        url = self._checked.url
        if (host, port) != (url.host, url.port):
            raise httpcore.ConnectError("another host than the one that was checked")
        for address in self._checked.addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        last = self._checked.addresses[-1]
        return await self._backend.connect_tcp(last, port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """See AsyncNetworkBackend. Always raises ConnectError."""
        raise httpcore.ConnectError("there are no webhooks on sockets")

    async def sleep(self, seconds: float) -> None:
        """See AsyncNetworkBackend."""
        await self._backend.sleep(seconds)


class Sender:
    """Sends messages. Another `resolve`, `backend` or `tls` (with other trusted certificates) is for tests."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolver | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
        clock: Clock = time.time,
    ) -> None:
        self._check = partial(check_url, resolve=resolve or BoundedResolver(MOST_LOOKUPS), allow_private=allow_private)
        self._backend = backend or httpcore.AnyIOBackend()
        self._timeout = timeout
        self._clock = clock
        self._tls = tls or ssl.create_default_context(cafile=certifi.where())

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """POST the body, and return the attempt. Raises only Unavailable, when too many names are being looked up.

        Once a status was received it is the result, however the rest of the answer ends.
        """
        began, started = self._clock(), time.monotonic()
        answered: list[int] = []
        error = None
        try:
            with fail_after(self._timeout):
                # The resolver's thread is abandoned when time is up: there is no way to stop it.
                checked = await to_thread.run_sync(self._check, url, abandon_on_cancel=True)
                await self._request(checked, headers, body, answered.append)
        except WebhookRefused as refused:
            error = f"refused: {refused.detail}"
        except (TimeoutError, httpcore.TimeoutException):
            error = f"no answer within {self._timeout:g} s"
        except httpcore.ProtocolError:
            error = "the answer is not HTTP"
        except (httpcore.NetworkError, OSError) as failure:
            error = "TLS failed" if _is_tls(failure) else "the connection failed"
        seconds = round(time.monotonic() - started, 3)
        if answered:
            return Attempt(at=began, seconds=seconds, status=answered[0])
        return Attempt(at=began, seconds=seconds, error=error)

    async def _request(
        self, checked: CheckedUrl, headers: Mapping[str, str], body: bytes, answered: Callable[[int], None]
    ) -> None:
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=PinnedBackend(checked, self._backend),
        )
        sent = {**headers, "content-length": str(len(body))}
        async with (
            pool,
            pool.stream("POST", _httpcore_url(checked.url), headers=list(sent.items()), content=body) as answer,
        ):
            answered(answer.status)
            left = MOST_BYTES
            async for part in answer.aiter_stream():
                left -= len(part)
                if left <= 0:
                    break


def _httpcore_url(url: ParsedUrl) -> httpcore.URL:
    """The URL made of the parts that were checked: the text is not parsed again."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return httpcore.URL(scheme=url.scheme, host=host, port=url.port, target=url.path)


def _is_tls(failure: BaseException) -> bool:
    """Whether TLS failed, because of a certificate for another name, say; the layers in between wrap its error."""
    cause: BaseException | None = failure
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
