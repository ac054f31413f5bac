"""The address that callers know: links begin with it, and what proxies say of a request is believed only of named ones.

`link` makes the link of a path in an answer's body. Routes write the path alone into `Location`; it becomes a link when
it is sent. The proxy removes the prefix, so routes and middleware see paths that begin with `/v1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.auth import is_loopback
from api.server.errors import Forbidden, problem_response
from core.settings import Settings

FOR, PROTO, HOST, PREFIX = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"
PROBES = frozenset({"/healthz", "/readyz"})
"""What is answered under any name: an orchestrator asks by address."""
UNKNOWN = "unknown"
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")
_base: ContextVar[str] = ContextVar("public_base", default="")


def public_base() -> str:
    """What callers put before a path of this service: `https://pictures.example.com/hdb`, `/hdb`, or nothing."""
    return _base.get()


def link(path: str) -> str:
    """The link of a path, as it stands in an answer."""
    return _base.get() + path


class PublicAddress:
    """Takes from a named proxy who calls, and under which name; refuses names that are not this service's."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._public = settings.public_url
        self._proxies = settings.trusted_proxies
        own = [urlsplit(settings.public_url).hostname or ""] if settings.allowed_hosts else []
        self._names = frozenset(name.lower() for name in (*settings.allowed_hosts, *own))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        prefix = self._believe(scope) if self._proxies and self._is_proxy(_peer(scope)) else ""
        base = self._public or prefix

        async def send_with_links(message: Message) -> None:
            if base and message["type"] == "http.response.start":
                message = {**message, "headers": [_linked(header, base.encode()) for header in message["headers"]]}
            await send(message)

        token = _base.set(base)
        try:
            if self._serves(scope):
                await self.app(scope, receive, send_with_links)
            else:
                error = Forbidden("This service does not answer under the name in Host: see HDB_ALLOWED_HOSTS.")
                request_id = scope.get("state", {}).get("request_id", "")
                await problem_response(error, request_id=request_id)(scope, receive, send)
        finally:
            _base.reset(token)

    def _serves(self, scope: Scope) -> bool:
        if not self._names or scope["path"] in PROBES:
            return True
        name = (_hostname(Headers(scope=scope).get("host", "")) or "").lower()
        above = f"*.{name.partition('.')[2]}"
        return name in self._names or above in self._names or is_loopback(name)

    def _is_proxy(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._proxies)

    def _believe(self, scope: Scope) -> str:
        """Take the caller's address, scheme and host from a named proxy's headers; returns the prefix they name."""
        headers = Headers(scope=scope)
        if not any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"]):
            return ""  # what runs beside the proxy asks for itself
        scope["client"] = (self._caller(headers.getlist(FOR)), 0)
        scheme = _last(headers.getlist(PROTO))
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        kept = [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-forwarded-")]
        host = _last(headers.getlist(HOST))
        if _HOST.fullmatch(host):
            kept = [(b"host", host.encode()), *((name, value) for name, value in kept if name != b"host")]
        scope["headers"] = kept
        prefix = _last(headers.getlist(PREFIX))
        return prefix.rstrip("/") if _PREFIX.fullmatch(prefix) else ""

    def _caller(self, hops: Iterable[str]) -> str:
        """The last address in X-Forwarded-For that is no named proxy's: those before it are only what it says.

        `unknown`, which is no address, when there is none.
        """
        caller = UNKNOWN
        for hop in reversed([part.strip() for line in hops for part in line.split(",")]):
            caller = hop if hop.count(":") > 1 and "[" not in hop else _hostname(hop) or UNKNOWN
            if not self._is_proxy(caller):
                return caller if _address(caller) else UNKNOWN
        return caller


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address; of an IPv4 address written as IPv6 the former. None when it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _peer(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _hostname(host: str) -> str | None:
    """The name in `name:port`; None when that is not how it is written."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _last(values: Iterable[str]) -> str:
    """What the nearest proxy says: the last of the values, in the last of the lines."""
    return ",".join(values).rpartition(",")[2].strip()


def _linked(header: tuple[bytes, bytes], base: bytes) -> tuple[bytes, bytes]:
    name, value = header
    return (name, base + value) if name.lower() == b"location" and value.startswith(b"/") else header
