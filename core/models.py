"""What workers say of the models that they run, for an API that has not their files. One object a model, of no tenant.

It is bytes here; `core.hyperdreambooth.model.description` reads them.
"""

from __future__ import annotations

import hashlib

from core.errors import ObjectNotFound
from core.storage import Store, keys


class ModelDescriptions:
    """The descriptions of models, by what the settings call their bundle. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, bundle: str, description: bytes) -> None:
        """Keep what a worker says of its bundle."""
        self._store.put(self._key(bundle), description, content_type="application/json")

    def get(self, bundle: str) -> bytes | None:
        """What a worker said of the bundle; None: none has loaded it yet."""
        try:
            return self._store.get(self._key(bundle))
        except ObjectNotFound:
            return None

    def _key(self, bundle: str) -> str:
        return keys.model(hashlib.sha256(bundle.encode()).hexdigest()[:16])
