"""Who may ask: holders of an API key, or, as long as there are no keys, this machine alone.

Keys are those of HDB_API_KEYS, for the tenant `local`, and those in the store, each for its own tenant
(core/tenants/api_keys.py, `hdb keys`). What the store says is believed for 30 seconds: a revoked key may live as long.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Depends, Request

from api.server.errors import Forbidden, Unauthorized
from api.server.limits import Limiter, judge
from core.errors import KeyNotFound, SettingsError
from core.records import LOCAL_TENANT
from core.settings import Settings
from core.tenants.api_keys import ApiKey, ApiKeys, hash_of, key_id

BELIEVED_SECONDS = 30.0
_MOST_BELIEVED = 10_000
"""Key ids that are remembered, also of keys that do not exist: guessing must not fill the memory."""


class Authenticator:
    """Knows which key opens what, and remembers for a while what the store said of keys."""

    def __init__(self, settings: Settings, keys: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._local = [hashlib.sha256(key.get_secret_value().encode()).hexdigest() for key in settings.api_keys]
        self._keys = keys
        self._clock = clock
        self._believed: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def refuse_open(self, settings: Settings) -> None:
        """Raise SettingsError when others could reach a service that asks for no key."""
        if not self._local and not is_loopback(settings.api_host) and self._keys.is_empty():
            raise SettingsError(
                f"Without API keys the service listens on loopback only, not on {settings.api_host}: make a key "
                "(hdb keys create), set HDB_API_KEYS, or HDB_API_HOST=127.0.0.1."
            )

    async def asks_for_keys(self) -> bool:
        """Whether there are keys at all; revoked ones count. Raises StoreUnavailable."""
        return bool(self._local) or not await self._believe("", self._keys.is_empty)

    async def tenant_of(self, authorization: str) -> str:
        """The tenant that an Authorization header names. Raises Unauthorized, StoreUnavailable."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        # Digests are compared, and every one of them, so that the time it takes tells nothing.
        digest = hash_of(given)
        is_local = any([hmac.compare_digest(digest, known) for known in self._local])  # noqa: C419  (no shortcut)
        known = await self._stored(given)
        fits = hmac.compare_digest(digest, known.hash if known else "0" * 64)
        if scheme.lower() == "bearer" and is_local:
            return LOCAL_TENANT
        if scheme.lower() == "bearer" and known and fits and known.revoked_at is None:
            return known.tenant
        raise Unauthorized("Send Authorization: Bearer and one of this service's keys.")

    async def _stored(self, given: str) -> ApiKey | None:
        identifier = key_id(given)
        if identifier is None:
            return None

        def look() -> ApiKey | None:
            try:
                return self._keys.get(identifier)
            except KeyNotFound:
                return None

        return await self._believe(identifier, look)  # type: ignore[no-any-return]

    async def _believe(self, name: str, look: Callable[[], Any]) -> Any:
        """What `look` says, or said within the last BELIEVED_SECONDS."""
        until, answer = self._believed.get(name, (0.0, None))
        if until <= self._clock():
            answer = await to_thread.run_sync(look)
            self._believed[name] = (self._clock() + BELIEVED_SECONDS, answer)
            self._believed.move_to_end(name)
            if len(self._believed) > _MOST_BELIEVED:
                self._believed.popitem(last=False)
        return answer


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


async def require_tenant(request: Request) -> str:
    """The tenant of a request.

    Raises Unauthorized for a missing or wrong key, Forbidden for strangers without keys, StoreUnavailable.
    """
    door: Authenticator = request.app.state.door
    if await door.asks_for_keys():
        return await door.tenant_of(request.headers.get("authorization", ""))
    refuse_strangers(request)
    return LOCAL_TENANT


async def require_insider(request: Request) -> None:
    """Let this machine in, and others that have a key. Raises Unauthorized, Forbidden, StoreUnavailable."""
    try:
        refuse_strangers(request)
    except Forbidden:
        await require_tenant(request)


def refuse_strangers(request: Request) -> None:
    """Refuse other machines, and web pages that a browser on this machine has open (by their name or their origin)."""
    client = request.client.host if request.client else ""
    origin = request.headers.get("origin")
    asked = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if (client and not is_loopback(client)) or not is_loopback(asked):
        raise Forbidden("Without API keys only this machine is served, as 127.0.0.1 or localhost.")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
        raise Forbidden("Without API keys no web page of another site is served.")


async def counted_tenant(request: Request) -> str:
    """The tenant of a request, which is counted. Raises RateLimited, and what `require_tenant` raises."""
    tenant = await require_tenant(request)
    limiter: Limiter = request.app.state.limiter
    judge(request, await limiter.take(tenant, limiter.requests))
    return tenant


Tenant = Annotated[str, Depends(counted_tenant)]
"""What every route under /v1 takes: the tenant whose things it may see, once its limits allow the request."""


async def count_personalization(request: Request, tenant: Tenant) -> None:
    """Count a request that personalises. Raises RateLimited."""
    limiter: Limiter = request.app.state.limiter
    verdict = await limiter.take(tenant, limiter.personalizations)
    judge(request, verdict)
    if verdict:
        request.state.personalizes_for = tenant


Personalizes = Depends(count_personalization)
"""`dependencies=[Idempotent, Personalizes]` on a route that personalises, in this order: what is only answered again
costs no personalisation. What was refused costs none either."""
