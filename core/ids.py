"""Ids: a prefix that says what it names, the time it was made, and 80 bits. They sort by time and are safe in a URL."""

from __future__ import annotations

import hashlib
import re
import secrets
import time

_ID = re.compile(r"(sub|job|img|bat|whk|msg)_[0-9a-z]{25}(-[0-9]{1,4})?")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""The digits of ids, in the order in which they sort."""


def new_id(prefix: str) -> str:
    """`prefix`, an underscore, 9 characters of milliseconds and 16 random ones (80 bits)."""
    return f"{prefix}_{_digits(int(time.time() * 1000), 9)}{_digits(secrets.randbits(80), 16)}"


def derived_id(prefix: str, at: float, what: str) -> str:
    """An id of the same form that is always the same for the same time (in seconds since 1970) and text."""
    bits = int.from_bytes(hashlib.sha256(what.encode()).digest()[:10], "big")
    return f"{prefix}_{_digits(int(at * 1000), 9)}{_digits(bits, 16)}"


def time_of(identifier: str) -> float:
    """When an id was made, in seconds since 1970. Raises ValueError when it is not one of ours."""
    stamp = identifier.partition("_")[2][:9]
    value = 0
    for character in stamp:
        value = value * 32 + ALPHABET.index(character)
    return value / 1000


def _digits(value: int, length: int) -> str:
    return "".join(ALPHABET[(value >> (5 * place)) & 31] for place in reversed(range(length)))


def is_id(identifier: str, prefix: str) -> bool:
    """Whether `identifier` has the form of our ids that start with `prefix`."""
    return identifier.startswith(f"{prefix}_") and _ID.fullmatch(identifier) is not None
