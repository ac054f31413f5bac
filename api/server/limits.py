"""What a tenant may ask for in a time. `Tenant` and `Personalizes` (auth.py) are the dependencies that count.

The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what is granted (q in w seconds),
`RateLimit` what is left (r) and when all of it is there again (t, in seconds).

A Redis that does not answer is no reason to refuse a read: then nothing is counted, and for a moment not even asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from anyio import CancelScope
from fastapi import Request
from redis.asyncio import Redis
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BrokerUnavailable, RateLimited
from core.records import LOCAL_TENANT
from core.settings import Settings
from core.tenants.rate_limits import Rate, Rates, Verdict

UNASKED_SECONDS = 5.0
"""After Redis did not answer: so long requests are not counted, so that each does not wait for it in vain."""

_log = logging.getLogger(__name__)


class Limiter:
    """The limits of the settings over the buckets in Redis."""

    def __init__(self, settings: Settings, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that answers or raises within a fraction of a second."""
        self.requests = Rate("requests", settings.requests_per_minute, 60)
        self.personalizations = Rate("personalizations", settings.personalizations_per_hour, 3600)
        self._limit_local = settings.limit_local
        self._rates = Rates(connect)
        self._ask_after = 0.0

    async def take(self, tenant: str, rate: Rate) -> Verdict | None:
        """Take one; None where there is no limit or nobody to ask. Raises RateLimited."""
        if not self._holds_for(tenant, rate) or time.monotonic() < self._ask_after:
            return None
        try:
            return await self._rates.take(tenant, rate)
        except BrokerUnavailable:
            self._ask_after = time.monotonic() + UNASKED_SECONDS
            _log.warning("rate_limits.redis_unavailable")
            return None

    async def give_back(self, tenant: str, rate: Rate) -> None:
        """One was taken in vain; if Redis has gone meanwhile, so be it."""
        try:
            await self._rates.give_back(tenant, rate)
        except BrokerUnavailable:
            _log.warning("rate_limits.redis_unavailable")

    def _holds_for(self, tenant: str, rate: Rate) -> bool:
        return rate.limit > 0 and (tenant != LOCAL_TENANT or self._limit_local)


def judge(request: Request, verdict: Verdict | None) -> None:
    """Note the verdict for the answer's headers. Raises RateLimited when nothing was taken."""
    if verdict is None:
        return
    request.state.verdicts = [*getattr(request.state, "verdicts", []), verdict]
    if not verdict.taken:
        rate = verdict.rate
        raise RateLimited(
            f"{rate.limit} {rate.name} in {rate.window} seconds are granted; try again in {verdict.wait} s.",
            retry_after=verdict.wait,
        )


class LimitHeaders:
    """Adds the limits' headers to the answer of a request that was counted, and gives back what was taken in vain."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if verdicts := state.get("verdicts"):
                    _describe(MutableHeaders(scope=message), verdicts)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if status >= 400 and (tenant := state.get("personalizes_for")):
                limiter: Limiter = scope["app"].state.limiter
                with CancelScope(shield=True):
                    await limiter.give_back(tenant, limiter.personalizations)


def _describe(headers: MutableHeaders, verdicts: list[Verdict]) -> None:
    headers["RateLimit-Policy"] = ", ".join(f'"{v.rate.name}";q={v.rate.limit};w={v.rate.window}' for v in verdicts)
    headers["RateLimit"] = ", ".join(f'"{v.rate.name}";r={v.left};t={v.reset}' for v in verdicts)
