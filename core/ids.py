"""Ids: a prefix that says what it names, the time it was made, and 80 bits. They sort by time and are safe in a URL."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass

_ID = re.compile(r"(sub|job|img|bat|whk|msg|pck)_[0-9a-z]{25}(-[0-9]{1,4})?")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_TEST = ".test"
"""Ends the name of the tenant that a test key opens: no tenant that is given a name can have it."""
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""The digits of ids, in the order in which they sort."""


def new_id(prefix: str) -> str:
    """`prefix`, an underscore, 9 characters of milliseconds and 16 random ones (80 bits)."""
    return f"{prefix}_{_digits(int(time.time() * 1000), 9)}{_digits(secrets.randbits(80), 16)}"


def derived_id(prefix: str, at: float, what: str) -> str:
    """An id of the same form that is always the same for the same time (in seconds since 1970) and text."""
    bits = int.from_bytes(hashlib.sha256(what.encode()).digest()[:10], "big")
    return f"{prefix}_{_digits(int(at * 1000), 9)}{_digits(bits, 16)}"


@dataclass(frozen=True)
class Ids:
    """The ids of what a request makes: `ids("job")` is a new one, or that of the request's first try.

    `repeated`: there was a first try, and its process may have died on the way, so that some of it may be there.
    """

    salt: str = ""
    at: float = 0.0
    repeated: bool = False

    def __call__(self, prefix: str) -> str:
        """The id of what the request makes of this kind."""
        return derived_id(prefix, self.at, f"{self.salt} {prefix}") if self.salt else new_id(prefix)


NEW = Ids()
"""Each is a new one."""


def time_of(identifier: str) -> float:
    """When an id was made, in seconds since 1970. Raises ValueError when it is not one of ours."""
    stamp = identifier.partition("_")[2][:9]
    value = 0
    for character in stamp:
        value = value * 32 + ALPHABET.index(character)
    return value / 1000


def _digits(value: int, length: int) -> str:
    return "".join(ALPHABET[(value >> (5 * place)) & 31] for place in reversed(range(length)))


def is_tenant(name: str) -> bool:
    """Whether `name` has the form of a tenant's."""
    return _TENANT.fullmatch(name) is not None


def tenant_of_tests(tenant: str) -> str:
    """The tenant that this one's test keys open: everything it has is apart, and stands under a name of its own."""
    return tenant + _TEST


def is_test(ref: str) -> bool:
    """Whether a tenant, or the one whose `ref` ("tenant/id") this is, is one that test keys open."""
    return ref.partition("/")[0].endswith(_TEST)


def is_ref(ref: str, prefix: str) -> bool:
    """Whether `ref` is a tenant, a slash and an id that starts with `prefix`: the only names that lead to keys."""
    tenant, _, identifier = ref.partition("/")
    return is_tenant(tenant.removesuffix(_TEST)) and is_id(identifier, prefix)


def is_id(identifier: str, prefix: str) -> bool:
    """Whether `identifier` has the form of our ids that start with `prefix`."""
    return identifier.startswith(f"{prefix}_") and _ID.fullmatch(identifier) is not None
