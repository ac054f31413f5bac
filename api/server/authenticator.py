"""API keys: those of HDB_API_KEYS, for the tenant `local`, and those in the store, each for its own tenant.

What the store says of a key is remembered for CACHE_SECONDS; a revoked key is accepted for little longer than that.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from anyio import CapacityLimiter, to_thread

from api.server.errors import Unauthorized
from api.server.wrong_keys import WrongKeys
from core.errors import KeyNotFound, SettingsError
from core.records import LOCAL_TENANT
from core.settings import Settings
from core.tenants.api_keys import ApiKey, ApiKeys, hash_of, key_id

CACHE_SECONDS = 2.0
_REFRESH_SECONDS = 0.5
"""How much longer others are answered from the cache while one request reads the store again."""
_MAX_CACHED = 10_000
"""Key ids that are cached, including those of keys that do not exist: guessing keys must not fill the memory."""
_TRUSTED_SECONDS = 3600.0
"""A key that was right within this time is tried out whatever other keys come from its address."""
_READERS = 8
"""Threads that read keys: they wait for no other work."""


class Caller(NamedTuple):
    """Whose request it is, and whether it came with a key."""

    tenant: str
    has_key: bool


class Authenticator:
    """Finds the tenant of an API key, with a cache before the store."""

    def __init__(self, settings: Settings, keys: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._local = [hashlib.sha256(key.get_secret_value().encode()).hexdigest() for key in settings.api_keys]
        self._keys = keys
        self._clock = clock
        self._cache: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._trusted: OrderedDict[str, float] = OrderedDict()
        self._wrong = WrongKeys(settings.wrong_keys_per_minute, clock=clock)
        self._readers = CapacityLimiter(_READERS)

    def refuse_open(self, to: str | None) -> None:
        """Raise SettingsError when there are no keys, and other machines could reach the service by the name `to`."""
        if to is not None and not self._local and self._keys.is_empty():
            raise SettingsError(
                f"Without API keys the service is for this machine only, not for {to or 'every address'}: make a "
                "key (hdb keys create), set HDB_API_KEYS, or HDB_API_HOST=127.0.0.1 and no HDB_PUBLIC_URL."
            )

    async def requires_key(self) -> bool:
        """Whether there are keys at all; revoked ones count. Raises StoreUnavailable."""
        return bool(self._local) or not await self._cached("", self._keys.is_empty)

    async def caller(self, authorization: str, address: str) -> Caller:
        """Whose key is in an Authorization header that came from this address.

        Raises Unauthorized, TooManyWrongKeys, StoreUnavailable.
        """
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if not given:
            raise _unauthorized()
        digest = hash_of(given)
        if self._trusted.get(digest, 0.0) <= self._clock():
            self._wrong.refuse(address)
        # Digests are compared, and every one of them, so that the time it takes does not depend on the key.
        is_local = any([hmac.compare_digest(digest, known) for known in self._local])  # noqa: C419  (no shortcut)
        known = await self._stored(given)
        fits = hmac.compare_digest(digest, known.hash if known else "0" * 64)
        is_good = is_local or (known is not None and fits and known.revoked_at is None)
        if not is_good or scheme.lower() != "bearer":
            self._trusted.pop(digest, None)
            reason = "no bearer" if is_good else "unknown" if known is None else "revoked" if fits else "wrong secret"
            self._wrong.note(address, reason, known.id if known else "")
            raise _unauthorized()
        self._trust(digest)
        return Caller(known.opens if known and fits else LOCAL_TENANT, has_key=True)

    def _trust(self, digest: str) -> None:
        self._trusted[digest] = self._clock() + _TRUSTED_SECONDS
        self._trusted.move_to_end(digest)
        if len(self._trusted) > _MAX_CACHED:
            self._trusted.popitem(last=False)

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
        if until > self._clock():
            return answer
        if name in self._cache:
            self._cache[name] = (self._clock() + _REFRESH_SECONDS, answer)
        try:
            answer = await to_thread.run_sync(read, limiter=self._readers)
        except BaseException:
            self._cache.pop(name, None)  # what is not known is not to be believed for longer
            raise
        self._cache[name] = (self._clock() + CACHE_SECONDS, answer)
        self._cache.move_to_end(name)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return answer


def _unauthorized() -> Unauthorized:
    return Unauthorized("Send Authorization: Bearer and one of this service's keys.")
