"""What a store is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


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

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove all of these, with as few requests as the store allows; no error for those that are not there."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key that starts with `prefix`, which ends in a slash."""

    def ping(self) -> None:
        """Raises StoreUnavailable when the store cannot be reached, or takes no writes: it is full, or read-only."""
