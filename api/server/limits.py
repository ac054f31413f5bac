"""Rate limits of the API. `Tenant` and `Personalizes` (auth.py) are the dependencies that count requests.

The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what is granted (q in w seconds),
`RateLimit` what is left (r) and when all of it is available again (t, in seconds).

An outage of Redis is no reason to refuse a read: requests are not counted then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from anyio import CancelScope
from fastapi import Request
from redis.asyncio import Redis
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.authenticator import Caller
from core.errors import BrokerUnavailable, InvalidInput, RateLimited
from core.ids import is_test
from core.records import GenerateRequest, PersonalizeRequest
from core.settings import Settings
from core.tenants.rate_limits import Rate, RateLimits, RateStatus
from core.work import WorkModel

OUTAGE_SECONDS = 5.0
"""After Redis did not answer, requests are not counted for so long, so that each does not wait for it in vain."""

CHECKS = 10
"""Checks of photos for each personalization that is granted: they take the same time of this process."""
_FAULTS = (400, 413, 415, 422)
"""Statuses of requests that are refused for what they have sent; 400 also when the sender has hung up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Charge:
    """What was counted for a request."""

    tenant: str
    rate: Rate
    count: float


class Limiter:
    """The rate limits of the settings, counted in Redis."""

    def __init__(self, settings: Settings, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that answers or raises within a fraction of a second."""
        self.requests = Rate("requests", settings.requests_per_minute, 60)
        self.personalizations = Rate("personalizations", settings.personalizations_per_hour, 3600)
        self.pictures = Rate("pictures", settings.pictures_per_hour, 3600)
        self.photo_checks = Rate("photo-checks", CHECKS * settings.personalizations_per_hour, 3600)
        self._limit_local = settings.limit_local
        self._limits = RateLimits(connect)
        self._outage_until = 0.0

    async def take(self, caller: Caller, rate: Rate, count: float = 1) -> RateStatus | None:
        """Count one request of the tenant; None when nothing is counted (no limit, or an outage of Redis)."""
        if not self.applies_to(caller, rate) or time.monotonic() < self._outage_until:
            return None
        try:
            return await self._limits.take(caller.tenant, rate, count)
        except BrokerUnavailable:
            self._outage_until = time.monotonic() + OUTAGE_SECONDS
            _log.warning("rate_limits.redis_unavailable")
            return None

    async def give_back(self, charge: Charge) -> None:
        """Uncount one request that came to nothing. An outage of Redis is ignored."""
        try:
            await self._limits.give_back(charge.tenant, charge.rate, charge.count)
        except BrokerUnavailable:
            _log.warning("rate_limits.redis_unavailable")

    def applies_to(self, caller: Caller, rate: Rate) -> bool:
        """Whether this caller's requests are counted by it. What a test key asks for is no work."""
        is_free = rate is self.pictures and is_test(caller.tenant)
        return rate.limit > 0 and not is_free and (caller.has_key or self._limit_local)

    def personalizing(self, caller: Caller) -> Rate:
        """What a request that personalizes is counted by: with a test key its photos are checked, and no more."""
        return self.photo_checks if is_test(caller.tenant) else self.personalizations


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


async def charge(request: Request, caller: Caller, rate: Rate, count: float = 1) -> None:
    """Count a request that is given back when it is refused. Raises RateLimited."""
    limiter: Limiter = request.app.state.limiter
    status = await limiter.take(caller, rate, count)
    enforce(request, status)
    if status:
        request.state.charges = [*getattr(request.state, "charges", []), Charge(caller.tenant, rate, count)]


async def charge_work(request: Request, asked: GenerateRequest | PersonalizeRequest) -> None:
    """Count the work of what is asked for, before it is accepted.

    Raises RateLimited, and InvalidInput for what is more work than is ever granted at once.
    """
    limiter: Limiter = request.app.state.limiter
    model: WorkModel = request.app.state.work_model
    caller: Caller = request.state.caller
    work, rate = round(model.of(asked), 3), limiter.pictures
    if limiter.applies_to(caller, rate) and work > rate.limit:
        raise InvalidInput(
            f"This is as much work as {work:,.0f} pictures of the model's own size and steps, and {rate.limit:,} in an "
            "hour are granted: ask for fewer pictures, fewer steps or a smaller size."
        )
    await charge(request, caller, rate, work)


def keep_charges(request: Request) -> None:
    """From now on the request costs work, also when it is refused for what it has sent."""
    request.state.keeps_charges = True


class LimitHeaders:
    """Adds the headers to the answer of a counted request, and gives back what was charged for nothing."""

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
            is_at_fault = state.get("keeps_charges", False) and status in _FAULTS
            if status >= 400 and not is_at_fault:
                limiter: Limiter = scope["app"].state.limiter
                with CancelScope(shield=True):
                    for each in state.get("charges", ()):
                        await limiter.give_back(each)


def _add_headers(headers: MutableHeaders, statuses: list[RateStatus]) -> None:
    headers["RateLimit-Policy"] = ", ".join(f'"{s.rate.name}";q={s.rate.limit};w={s.rate.window}' for s in statuses)
    headers["RateLimit"] = ", ".join(f'"{s.rate.name}";r={s.left};t={s.reset}' for s in statuses)
