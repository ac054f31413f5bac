"""The object store: immutable bytes under keys, in a folder or in S3. One protocol, one behaviour."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.errors import SettingsError
from core.settings import Settings
from core.storage.folder import FolderStore
from core.storage.keys import check_key, check_prefix
from core.storage.s3 import S3Store
from core.storage.store import Store

__all__ = ["FolderStore", "S3Store", "Store", "check_key", "check_prefix", "open_store"]


def open_store(settings: Settings) -> Store:
    """The store of the settings. Raises SettingsError when there is no such kind."""
    url = urlsplit(settings.store_url)
    if url.scheme == "file" and url.path and not url.netloc:
        return FolderStore(Path(unquote(url.path)).resolve())
    if url.scheme == "s3" and url.netloc:
        return S3Store(url.netloc, url.path, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
    raise SettingsError(f"store {settings.store_url!r} is neither file:///folder nor s3://bucket/prefix")
