"""The store as a folder of files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import ObjectNotFound, StoreUnavailable
from core.storage.keys import check_key, check_prefix

_BLOCK = 4096
_TRIES = 10
"""Of what another process may undo meanwhile."""


class FolderStore:
    """A folder of files. Writes go to a hidden file beside the target, are synced, and renamed into place."""

    def __init__(self, root: Path) -> None:
        """`root` is made by the first `put`, readable by its owner only: it holds people's faces."""
        self.root = root

    def put(self, key: str, data: bytes, *, content_type: str = "") -> None:  # noqa: ARG002
        """See Store. The hidden file lies in the target's folder, so that deleting a prefix takes leftovers along."""
        target = self.root / check_key(key)
        with _as_unavailable():
            for left in reversed(range(_TRIES)):
                try:
                    self._write(target, data)
                    break
                except (FileNotFoundError, FileExistsError):  # the folder went while it was made or written into
                    if not left:
                        raise

    def get(self, key: str) -> bytes:
        """See Store."""
        with _as_unavailable():
            try:
                return (self.root / check_key(key)).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectNotFound(f"no object {key}") from None

    def exists(self, key: str) -> bool:
        """See Store."""
        return (self.root / check_key(key)).is_file()

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """See Store."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        yield from self._walk(folder + slash, prefix, after)

    def delete(self, key: str) -> None:
        """See Store."""
        file = self.root / check_key(key)
        with _as_unavailable(), contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            file.unlink()
            self._prune(file.parent)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See Store."""
        for key in keys:
            self.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """See Store."""
        folder = self.root / check_prefix(prefix, folder=True)
        with _as_unavailable():
            for _ in range(_TRIES):  # a writer may put something into a folder that is being taken away
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
            else:
                shutil.rmtree(folder)
            self._prune(folder.parent)

    def ping(self) -> None:
        """See Store: a file of a disk's block is written, beside what keys can name."""
        with _as_unavailable():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"no access to {self.root}")
            probe = self.root / f".{secrets.token_hex(8)}.probe"
            try:
                probe.write_bytes(bytes(_BLOCK))
            finally:
                probe.unlink(missing_ok=True)

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        """The keys in a folder ("" or ending in a slash), sorted; each folder is read when its turn has come."""
        names: list[str] = []
        gone = contextlib.suppress(FileNotFoundError, NotADirectoryError)
        with _as_unavailable(), gone, os.scandir(self.root / folder) as entries:
            # A folder's name with its slash sorts as all the keys in it do.
            names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in entries)
        for key in [folder + name for name in names if not name.startswith(".")]:
            if key.startswith(prefix) and key.endswith("/") and (key > after or after.startswith(key)):
                yield from self._walk(key, prefix, after)
            elif key.startswith(prefix) and not key.endswith("/") and key > after:
                yield key

    def _write(self, target: Path, data: bytes) -> None:
        self._make_folder(target.parent)
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with contextlib.suppress(FileNotFoundError):  # deleted already, with its folder
            _sync_folder(target.parent)

    def _prune(self, folder: Path) -> None:
        """Take away folders that are empty, from this one up: their names are ids, and every listing reads them."""
        with contextlib.suppress(OSError):  # not empty, or gone
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def _make_folder(self, folder: Path) -> None:
        """Make the folder and its parents, each synced into the one above: a power cut must not lose the path."""
        if folder.is_dir():
            return
        if folder == self.root:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the store's folder failed: {error.strerror or error}") from error
