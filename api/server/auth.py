"""Authentication: callers need an API key, or, as long as there are no keys, must be on this machine.

Under /v1 a request's key is checked before a byte of its body is read, and again while its answer takes long.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.server.authenticator import Authenticator, Caller
from api.server.errors import Forbidden, Unauthorized, problem_response, request_id_of
from api.server.key_watch import run_while
from api.server.limits import Limiter, charge, enforce
from api.server.query import refuse_unknown_parameters
from core.errors import HyperDreamBoothError, Unavailable
from core.records import LOCAL_TENANT
from core.settings import Settings

_PROTECTED = "/v1/"


class Authenticate:
    """Refuses requests under /v1 without a good key before their bodies are read, and notes whose the others are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PROTECTED):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            request.state.caller = caller = await authenticate(request)
        except HyperDreamBoothError as error:
            await problem_response(error, request_id=request_id_of(request))(scope, receive, send)
            return
        if request.method not in ("GET", "HEAD"):  # what changes something is not left half-way
            await self.app(scope, receive, send)
            return

        async def refusal() -> HyperDreamBoothError | None:
            try:
                is_same = (await authenticate(request)).tenant == caller.tenant
            except Unavailable:
                return None
            except HyperDreamBoothError as error:
                return error
            return None if is_same else Unauthorized("The key is another tenant's now.")

        await run_while(self.app, refusal, scope, receive, send)


async def authenticate(request: Request) -> Caller:
    """Whose request it is.

    Raises Unauthorized for a missing or wrong key, TooManyWrongKeys, Forbidden for other machines when there are no
    keys, StoreUnavailable.
    """
    authenticator: Authenticator = request.app.state.authenticator
    if await authenticator.requires_key():
        address = request.client.host if request.client else ""
        return await authenticator.caller(request.headers.get("authorization", ""), address)
    require_local(request)
    return Caller(LOCAL_TENANT, has_key=False)


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def open_to(settings: Settings) -> str | None:
    """An address, or the public name, that other machines may reach the service by; None when only this one can."""
    public = urlsplit(settings.public_url).hostname or settings.api_host
    return next((host for host in (settings.api_host, public) if not is_loopback(host)), None)


async def the_caller(request: Request) -> Caller:
    """Whose request it is, as the middleware has found out. Raises what `authenticate` raises."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller or await authenticate(request)


async def require_local_or_key(request: Request) -> None:
    """Let this machine pass, and others that have a key. Raises Unauthorized, Forbidden, StoreUnavailable."""
    try:
        require_local(request)
    except Forbidden:
        await the_caller(request)


def require_local(request: Request) -> None:
    """Raise Forbidden for other machines, and for web pages of other sites in a browser on this machine."""
    client = request.client.host if request.client else ""
    origin = request.headers.get("origin")
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if (client and not is_loopback(client)) or not is_loopback(host):
        raise Forbidden("Without API keys only this machine is served, as 127.0.0.1 or localhost.")
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")):
        raise Forbidden("Without API keys no one is served through a proxy; name it in HDB_TRUSTED_PROXIES.")
    if origin is None and request.headers.get("sec-fetch-site") == "cross-site":
        raise Forbidden("Without API keys no web page of another site is served.")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
        raise Forbidden("Without API keys no web page of another site is served.")


async def counted_tenant(request: Request) -> str:
    """The tenant of a request, which is counted.

    Raises RateLimited, InvalidFields for unknown query parameters, and what `authenticate` raises.
    """
    caller = await the_caller(request)
    limiter: Limiter = request.app.state.limiter
    enforce(request, await limiter.take(caller, limiter.requests))
    if request.query_params:
        refuse_unknown_parameters(request)
    return caller.tenant


Tenant = Annotated[str, Depends(counted_tenant)]
"""The parameter of every route under /v1: the tenant whose resources it may see, once its rate limits allow that."""


async def count_personalization(request: Request, _: Tenant) -> None:
    """Count a request that personalizes. Raises RateLimited."""
    limiter: Limiter = request.app.state.limiter
    caller = await the_caller(request)
    await charge(request, caller, limiter.personalizing(caller))


Personalizes = Depends(count_personalization)
"""`dependencies=[Idempotent, Personalizes]` on a route that personalizes, in this order: a repeated request that is
answered from its saved response is not counted. One that is refused is counted once its photos were looked at."""


async def count_photo_check(request: Request, _: Tenant) -> None:
    """Count a request that checks photos. Raises RateLimited."""
    limiter: Limiter = request.app.state.limiter
    await charge(request, await the_caller(request), limiter.photo_checks)


ChecksPhotos = Depends(count_photo_check)
"""On a route that checks photos, and keeps nothing."""
