"""Who may ask: holders of an API key, or, as long as there are no keys, this machine alone."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from pydantic import SecretStr

from api.errors import Forbidden, Unauthorized
from core.errors import SettingsError
from core.jobs import LOCAL_TENANT
from core.settings import Settings


def refuse_open_door(settings: Settings) -> None:
    """Raise SettingsError when others could reach a service that asks for no key."""
    if not settings.api_keys and not is_loopback(settings.api_host):
        raise SettingsError(
            f"Without API keys the service listens on loopback only, not on {settings.api_host}: "
            "set HDB_API_KEYS, or HDB_API_HOST=127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


async def require_tenant(request: Request) -> str:
    """The tenant of a request. Raises Unauthorized for a missing or wrong key, Forbidden for strangers without keys."""
    keys: Sequence[SecretStr] = request.app.state.settings.api_keys
    if keys:
        _check_key(request.headers.get("authorization", ""), keys)
    else:
        _check_local(request)
    return LOCAL_TENANT


Tenant = Annotated[str, Depends(require_tenant)]


def _check_key(authorization: str, keys: Sequence[SecretStr]) -> None:
    scheme, _, given = authorization.partition(" ")
    digest = hashlib.sha256(given.strip().encode()).digest()
    # Every key is compared, and digests are, so that the time it takes tells nothing.
    matches = [hmac.compare_digest(digest, hashlib.sha256(key.get_secret_value().encode()).digest()) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthorized("Send Authorization: Bearer and one of this service's keys.")


def _check_local(request: Request) -> None:
    """Refuse other machines, and web pages that a browser on this machine has open (by their name or their origin)."""
    client = request.client.host if request.client else ""
    origin = request.headers.get("origin")
    asked = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if (client and not is_loopback(client)) or not is_loopback(asked):
        raise Forbidden("Without API keys only this machine is served, as 127.0.0.1 or localhost.")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
        raise Forbidden("Without API keys no web page of another site is served.")
