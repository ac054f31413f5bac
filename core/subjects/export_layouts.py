"""What the API has to know of a base model to make files for other programs, written down by the workers.

One object for each base model, of no tenant. It is bytes here; `core.hyperdreambooth.formats.exports` reads them.
"""

from __future__ import annotations

from core.errors import ObjectNotFound, SubjectNotReady
from core.storage import Store, keys


def write_down(store: Store, fingerprint: str, basis: str, layout: bytes) -> None:
    """Keep the layout of a base model, by its two hashes. Raises StoreUnavailable."""
    store.put(keys.layout(fingerprint, basis), layout, content_type="application/json")


def look_up(store: Store, fingerprint: str, basis: str) -> bytes:
    """The layout of a base model. Raises SubjectNotReady when no worker has written it down, StoreUnavailable."""
    try:
        return store.get(keys.layout(fingerprint, basis))
    except ObjectNotFound:
        raise SubjectNotReady(
            "No worker has described the base model of these weights yet: make a picture of any subject, then ask "
            "again; format=lidb is there already."
        ) from None
