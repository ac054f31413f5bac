"""In-memory implementations of Store and Notifier, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.errors import ObjectNotFound
from core.storage import check_key, check_prefix
from core.storage.encryption import Cipher

CIPHER = Cipher(lambda: bytes(32))


class MemoryStore:
    """A Store in memory, gone with its process."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes, *, content_type: str = "") -> None:  # noqa: ARG002
        """See Store."""
        self.objects[check_key(key)] = bytes(data)

    def get(self, key: str) -> bytes:
        """See Store."""
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise ObjectNotFound(f"no object {key}") from None

    def exists(self, key: str) -> bool:
        """See Store."""
        return check_key(key) in self.objects

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """See Store."""
        check_prefix(prefix)
        yield from sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def delete(self, key: str) -> None:
        """See Store."""
        self.objects.pop(check_key(key), None)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See Store."""
        for key in keys:
            self.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """See Store."""
        for key in list(self.list(check_prefix(prefix, folder=True))):
            self.delete(key)

    def ping(self) -> None:
        """See Store: never raises."""


class MemoryNotifier:
    """A Notifier that records its notifications."""

    def __init__(self) -> None:
        self.notified: list[tuple[str, str]] = []

    def notify(self, kind: str, ref: str) -> None:
        """See Notifier."""
        self.notified.append((kind, ref))
