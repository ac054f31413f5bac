"""Authentication: callers need an API key, or, as long as there are no keys, must be on this machine.

Keys are those of HDB_API_KEYS, for the tenant `local`, and those in the store, each for its own tenant
(core/tenants/api_keys.py, `hdb keys`). What the store says of a key is cached for 30 seconds: a revoked key may be
accepted for so long.
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
from api.server.limits import Limiter, enforce
from api.server.query import refuse_unknown_parameters
from core.errors import KeyNotFound, SettingsError
from core.records import LOCAL_TENANT
from core.settings import Settings
from core.tenants.api_keys import ApiKey, ApiKeys, hash_of, key_id

CACHE_SECONDS = 30.0
_MAX_CACHED = 10_000
"""Key ids that are cached, including those of keys that do not exist: guessing keys must not fill the memory."""


class Authenticator:
    """Finds the tenant of an API key, with a cache before the store."""

    def __init__(self, settings: Settings, keys: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._local = [hashlib.sha256(key.get_secret_value().encode()).hexdigest() for key in settings.api_keys]
        self._keys = keys
        self._clock = clock
        self._cache: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def refuse_open(self, settings: Settings) -> None:
        """Raise SettingsError when other machines could reach a service that has no keys."""
        if not self._local and not is_loopback(settings.api_host) and self._keys.is_empty():
            raise SettingsError(
                f"Without API keys the service listens on loopback only, not on {settings.api_host}: make a key "
                "(hdb keys create), set HDB_API_KEYS, or HDB_API_HOST=127.0.0.1."
            )

    async def requires_key(self) -> bool:
        """Whether there are keys at all; revoked ones count. Raises StoreUnavailable."""
        return bool(self._local) or not await self._cached("", self._keys.is_empty)

    async def tenant_of(self, authorization: str) -> str:
        """The tenant of the key in an Authorization header. Raises Unauthorized, StoreUnavailable."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        # Digests are compared, and every one of them, so that the time it takes does not depend on the key.
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

        def read() -> ApiKey | None:
            try:
                return self._keys.get(identifier)
            except KeyNotFound:
                return None

        return await self._cached(identifier, read)  # type: ignore[no-any-return]

    async def _cached(self, name: str, read: Callable[[], Any]) -> Any:
        """What `read` returns, or returned under this name within the last CACHE_SECONDS."""
        until, answer = self._cache.get(name, (0.0, None))
        if until <= self._clock():
            answer = await to_thread.run_sync(read)
            self._cache[name] = (self._clock() + CACHE_SECONDS, answer)
            self._cache.move_to_end(name)
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
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

    Raises Unauthorized for a missing or wrong key, Forbidden for other machines when there are no keys,
    StoreUnavailable.
    """
    authenticator: Authenticator = request.app.state.authenticator
    if await authenticator.requires_key():
        return await authenticator.tenant_of(request.headers.get("authorization", ""))
    require_local(request)
    return LOCAL_TENANT


async def require_local_or_key(request: Request) -> None:
    """Let this machine pass, and others that have a key. Raises Unauthorized, Forbidden, StoreUnavailable."""
    try:
        require_local(request)
    except Forbidden:
        await require_tenant(request)


def require_local(request: Request) -> None:
    """Raise Forbidden for other machines, and for web pages of other sites in a browser on this machine."""
    client = request.client.host if request.client else ""
    origin = request.headers.get("origin")
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if (client and not is_loopback(client)) or not is_loopback(host):
        raise Forbidden("Without API keys only this machine is served, as 127.0.0.1 or localhost.")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
        raise Forbidden("Without API keys no web page of another site is served.")


async def counted_tenant(request: Request) -> str:
    """The tenant of a request, which is counted.

    Raises RateLimited, InvalidFields for unknown query parameters, and what `require_tenant` raises.
    """
    tenant = await require_tenant(request)
    limiter: Limiter = request.app.state.limiter
    enforce(request, await limiter.take(tenant, limiter.requests))
    if request.query_params:
        refuse_unknown_parameters(request)
    return tenant


Tenant = Annotated[str, Depends(counted_tenant)]
"""The parameter of every route under /v1: the tenant whose resources it may see, once its rate limits allow that."""


async def count_personalization(request: Request, tenant: Tenant) -> None:
    """Count a request that personalizes. Raises RateLimited."""
    limiter: Limiter = request.app.state.limiter
    status = await limiter.take(tenant, limiter.personalizations)
    enforce(request, status)
    if status:
        request.state.personalizes_for = tenant


Personalizes = Depends(count_personalization)
"""`dependencies=[Idempotent, Personalizes]` on a route that personalizes, in this order: a repeated request that is
answered from its saved response is not counted. A refused request is not counted either."""
