"""What a store is, and what its keys look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_PREFIX = re.compile(rf"(?:{_PART}/)*(?:{_PART})?")


class Store(Protocol):
    """Bytes under keys like `local/jobs/job_1/0.png`: parts of letters, digits, `.`, `_`, `-`, separated by slashes.

    Every method raises ValueError for a key that is not one (so that no key can leave the store) and StoreUnavailable
    when the store does not answer within its bounded retries. A `put` is whole or not there, and durable on return.
    """

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write, or overwrite."""

    def get(self, key: str) -> bytes:
        """Read. Raises ObjectNotFound."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under exactly this key."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """The keys that start with `prefix` (cut at any character; "" for all) and come after `after`, sorted."""

    def delete(self, key: str) -> None:
        """Remove; no error when there is nothing."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key that starts with `prefix`, which ends in a slash."""

    def presign(self, key: str, seconds: int) -> str | None:
        """A URL that reads the object for so long without credentials; None where the store cannot do that."""

    def ping(self) -> None:
        """Raises StoreUnavailable when the store cannot be reached."""


def check_key(key: str) -> str:
    """`key` itself. Raises ValueError when it is not a key."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_prefix(prefix: str, *, folder: bool = False) -> str:
    """`prefix` itself. Raises ValueError when no key can start with it, or it is no `folder` (ends in a slash)."""
    if not _PREFIX.fullmatch(prefix) or (folder and not prefix.endswith("/")):
        raise ValueError(f"not a store prefix: {prefix!r}")
    return prefix
