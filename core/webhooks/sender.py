"""One attempt: resolve, check, connect to what was checked, send, read the status. No redirects, no proxies, no more.

httpcore is used as it is, without httpx above it, which follows the environment's proxies and logs URLs: all that is
wanted here is one request over a connection whose other end was chosen beforehand.
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
from core.webhooks.addresses import BoundedResolver, Checked, Resolver, Target, check
from core.webhooks.messages import Attempt

TIMEOUT_SECONDS = 10.0
"""For everything together, from resolving the name to the answer's status."""
MOST_LOOKUPS = 32
"""Names that are looked up at once, those included that nobody waits for any more."""
CONNECT_SECONDS = 3.0
"""For one address, when there are others."""
MOST_BYTES = 4096
"""Of an answer's body: so much is read, so that the connection ends in good order, and dropped."""

Clock: TypeAlias = Callable[[], float]


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to one target only, at its checked addresses, whatever its name resolves to by now."""

    def __init__(self, checked: Checked, backend: httpcore.AsyncNetworkBackend) -> None:
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
        target = self._checked.target
        if (host, port) != (target.host, target.port):
            raise httpcore.ConnectError("another host than the one that was checked")
        for address in self._checked.addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        last = self._checked.addresses[-1]
        return await self._backend.connect_tcp(last, port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.ConnectError("there are no webhooks on sockets")

    async def sleep(self, seconds: float) -> None:
        """See AsyncNetworkBackend."""
        await self._backend.sleep(seconds)


class Post:
    """Sends messages. Another `resolve`, `backend` or `tls` (whose certificates are believed) is for tests."""

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
        self._check = partial(check, resolve=resolve or BoundedResolver(MOST_LOOKUPS), allow_private=allow_private)
        self._backend = backend or httpcore.AnyIOBackend()
        self._timeout = timeout
        self._clock = clock
        self._tls = tls or ssl.create_default_context(cafile=certifi.where())

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """What came of it. Never raises for what the other side does; Unavailable when too many names hang.

        Once there is a status it counts, however the rest of the answer ends.
        """
        began, started = self._clock(), time.monotonic()
        answered: list[int] = []
        error = None
        try:
            with fail_after(self._timeout):
                # The resolver's thread is left to itself when time is up: there is no way to stop it.
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
        self, checked: Checked, headers: Mapping[str, str], body: bytes, answered: Callable[[int], None]
    ) -> None:
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=PinnedBackend(checked, self._backend),
        )
        sent = {**headers, "content-length": str(len(body))}
        async with pool, pool.stream("POST", _url(checked.target), headers=list(sent.items()), content=body) as answer:
            answered(answer.status)
            left = MOST_BYTES
            async for part in answer.aiter_stream():
                left -= len(part)
                if left <= 0:
                    break


def _url(target: Target) -> httpcore.URL:
    """The parts as they were checked: nothing is read from text again."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return httpcore.URL(scheme=target.scheme, host=host, port=target.port, target=target.path)


def _is_tls(failure: BaseException) -> bool:
    """Whether it came of TLS, a certificate for another name, say; the layers in between wrap it."""
    cause: BaseException | None = failure
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
