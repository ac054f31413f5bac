"""Which addresses webhooks may have: public ones, over TLS. No URL makes this service connect to its own network.

A URL is accepted only when it can be read in one way: a plain name or a plain address, without user, fragment or
escapes. Its name is resolved once, all its addresses must be public, and the connection goes to the addresses that were
checked (sender.py), so that a name that resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import zip_longest
from threading import BoundedSemaphore
from typing import TypeAlias

from core.errors import Unavailable, WebhookRefused

MAX_URL = 2048
PORTS = frozenset({443, 8443})
MOST_ADDRESSES = 3
"""So many addresses of a name are tried, of both families where it has both: one may be unreachable from here."""

Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""The addresses of a name, for a port. Raises OSError when there are none."""

_URL = re.compile(
    r"(?P<scheme>[a-z]{1,10})://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
_LOCAL_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa")
"""Last labels of names that are never public."""
_NOT_PUBLIC_V4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own, at every machine there
        "169.254.0.0/16",  # the link, and clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation, as two more below
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocols' own, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address within, whichever
        "3ffe::/16",
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""Where a network has IPv6 only, IPv4 addresses are resolved to these: the last 32 bits count."""


@dataclass(frozen=True)
class ParsedUrl:
    """A URL in parts, its name not yet resolved. `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address that the URL itself names, or None for a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True)
class CheckedUrl:
    """A URL whose `addresses` may be connected to."""

    url: ParsedUrl
    addresses: tuple[str, ...]


def system_resolver(name: str, port: int) -> Sequence[str]:
    """The system's resolver. It may take as long as the system lets it, and cannot be stopped."""
    return [str(found[4][0]) for found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]


class BoundedResolver:
    """A resolver with a limit of lookups at once: names whose servers never answer must not take all threads."""

    def __init__(self, most: int, resolve: Resolver = system_resolver) -> None:
        self._free = BoundedSemaphore(most)
        self._resolve = resolve

    def __call__(self, name: str, port: int) -> Sequence[str]:
        """See Resolver. Raises Unavailable, at once, when the limit is reached."""
        if not self._free.acquire(blocking=False):
            raise Unavailable("Too many names are being looked up; try again in a moment.", retry_after=5.0)
        try:
            return self._resolve(name, port)
        finally:
            self._free.release()


def check_url(url: str, resolve: Resolver = system_resolver, *, allow_private: bool = False) -> CheckedUrl:
    """Parse a URL and resolve its name to the addresses to connect to. Raises WebhookRefused.

    `allow_private`: for development, any address, any port, and plain HTTP.
    """
    parsed = parse_url(url, allow_private=allow_private)
    addresses = [str(parsed.address)] if parsed.address else _resolve(parsed, resolve)
    if not allow_private and not all(is_public(address) for address in addresses):
        raise _refused(f"{parsed.host} is not a public address; messages are sent to those on the internet only.")
    return CheckedUrl(parsed, tuple(_alternating(addresses)[:MOST_ADDRESSES]))


def parse_url(url: str, *, allow_private: bool = False) -> ParsedUrl:
    """Parse a URL strictly; its name is not resolved. Raises WebhookRefused."""
    found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if found is None:
        raise _refused(
            "Send an absolute https URL of at most 2048 ASCII characters, without user, password and fragment; "
            "a name with other letters is written in its xn-- form."
        )
    if found["scheme"] != "https" and not (allow_private and found["scheme"] == "http"):
        raise _refused("Only https is supported: send a URL that starts with https://.")
    port = int(found["port"] or (443 if found["scheme"] == "https" else 80))
    if port not in PORTS and not (allow_private and 0 < port < 65536):
        raise _refused(f"Only the ports {' and '.join(map(str, sorted(PORTS)))} are connected to.")
    host = _host(found["host"].lower(), allow_private=allow_private)
    return ParsedUrl(found["scheme"], host, port, (found["path"] or "/") + (found["query"] or ""))


def is_public(address: str) -> bool:
    """Whether an address, as a resolver gives it, is one on the internet that belongs to one host."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return parsed.is_global and not any(parsed in block for block in _NOT_PUBLIC_V4)
    if parsed.scope_id is not None:
        return False
    if parsed in _NAT64:
        return is_public(str(IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed in _PUBLIC_V6 and parsed.is_global and not any(parsed in block for block in _NOT_PUBLIC_V6)


def _host(host: str, *, allow_private: bool) -> str:
    """The host's name, or its address without brackets. Raises WebhookRefused."""
    if host.startswith("["):
        try:
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            raise _refused(f"{host} is not an IPv6 address.") from None
    labels = host.split(".")
    if _is_number(labels[-1]):  # other forms are read as an address by some programs, and by each in its own way
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise _refused(f"{host} is neither a name nor an IPv4 address as it is written: 203.0.113.7.") from None
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(f"{host[:100]} is not a host's name.")
    if not allow_private and (len(labels) < 2 or labels[-1] in _LOCAL_NAMES):
        raise _refused(f"{host} is not a name on the internet.")
    return host


def _is_number(label: str) -> bool:
    return label.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", label) is not None


def _resolve(url: ParsedUrl, resolve: Resolver) -> list[str]:
    try:
        addresses = list(dict.fromkeys(resolve(url.host, url.port)))
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise _refused(f"{url.host} has no address.")
    return addresses


def _alternating(addresses: Sequence[str]) -> list[str]:
    """The addresses with IPv6 and IPv4 alternating, beginning with the family that the resolver puts first."""
    first_is_v6 = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) is first_is_v6]
    other = [address for address in addresses if (":" in address) is not first_is_v6]
    return [address for pair in zip_longest(same, other) for address in pair if address]


def _refused(detail: str) -> WebhookRefused:
    return WebhookRefused(detail, field="url")
