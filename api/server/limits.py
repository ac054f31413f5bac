"""Rate limits of the API. `Tenant` and `Personalizes` (auth.py) are the dependencies that count requests.

The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what is granted (q in w seconds),
`RateLimit` what is left (r) and when all of it is available again (t, in seconds).

An outage of Redis is no reason to refuse a read: requests are not counted then.
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
from core.tenants.rate_limits import Rate, RateLimits, RateStatus

OUTAGE_SECONDS = 5.0
"""After Redis did not answer, requests are not counted for so long, so that each does not wait for it in vain."""

_log = logging.getLogger(__name__)


class Limiter:
    """The rate limits of the settings, counted in Redis."""

    def __init__(self, settings: Settings, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that answers or raises within a fraction of a second."""
        self.requests = Rate("requests", settings.requests_per_minute, 60)
        self.personalizations = Rate("personalizations", settings.personalizations_per_hour, 3600)
        self._limit_local = settings.limit_local
        self._limits = RateLimits(connect)
        self._outage_until = 0.0

    async def take(self, tenant: str, rate: Rate) -> RateStatus | None:
        """Count one request of the tenant; None when nothing is counted (no limit, or an outage of Redis)."""
        if not self._applies_to(tenant, rate) or time.monotonic() < self._outage_until:
            return None
        try:
            return await self._limits.take(tenant, rate)
        except BrokerUnavailable:
            self._outage_until = time.monotonic() + OUTAGE_SECONDS
            _log.warning("rate_limits.redis_unavailable")
            return None

    async def give_back(self, tenant: str, rate: Rate) -> None:
        """Uncount one request that came to nothing. An outage of Redis is ignored."""
        try:
            await self._limits.give_back(tenant, rate)
        except BrokerUnavailable:
            _log.warning("rate_limits.redis_unavailable")

    def _applies_to(self, tenant: str, rate: Rate) -> bool:
        return rate.limit > 0 and (tenant != LOCAL_TENANT or self._limit_local)


def enforce(request: Request, status: RateStatus | None) -> None:
    """Note the status for the answer's headers. Raises RateLimited when the request is over the limit."""
    if status is None:
        return
    request.state.rate_statuses = [*getattr(request.state, "rate_statuses", []), status]
    if not status.granted:
        rate = status.rate
        raise RateLimited(
            f"{rate.limit} {rate.name} in {rate.window} seconds are granted; try again in {status.wait} s.",
            retry_after=status.wait,
        )


class LimitHeaders:
    """Adds the headers to the answer of a counted request, and uncounts a personalization that was refused."""

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
                if statuses := state.get("rate_statuses"):
                    _add_headers(MutableHeaders(scope=message), statuses)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if status >= 400 and (tenant := state.get("personalizes_for")):
                limiter: Limiter = scope["app"].state.limiter
                with CancelScope(shield=True):
                    await limiter.give_back(tenant, limiter.personalizations)


def _add_headers(headers: MutableHeaders, statuses: list[RateStatus]) -> None:
    headers["RateLimit-Policy"] = ", ".join(f'"{s.rate.name}";q={s.rate.limit};w={s.rate.window}' for s in statuses)
    headers["RateLimit"] = ", ".join(f'"{s.rate.name}";r={s.left};t={s.reset}' for s in statuses)
