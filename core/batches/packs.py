"""Packs: named lists of prompts of a tenant, in the object store. A batch takes their prompts, and then is its own."""

from __future__ import annotations

import contextlib
import time

from core.errors import InvalidInput, ObjectNotFound, PackNotFound
from core.ids import NEW, Ids, is_id
from core.records import Record
from core.storage import Store, keys
from core.storage.stored import dump, load

MAX_PACKS = 100
"""Packs of each tenant."""


class Pack(Record):
    """A name, and the prompts that it stands for."""

    id: str
    name: str
    prompts: tuple[str, ...]
    created_at: float


class Packs:
    """The packs of all tenants. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, tenant: str, name: str, prompts: tuple[str, ...], ids: Ids = NEW) -> Pack:
        """A new pack. Raises InvalidInput when the tenant has MAX_PACKS."""
        pack_id = ids("pck")
        if ids.repeated:
            with contextlib.suppress(PackNotFound):
                return self.get(tenant, pack_id)
        if len(self._keys(tenant)) >= MAX_PACKS:
            raise InvalidInput(f"There are {MAX_PACKS} packs already: delete one first.")
        pack = Pack(id=pack_id, name=name, prompts=prompts, created_at=time.time())
        self._store.put(keys.pack(tenant, pack.id), dump(pack), content_type="application/json")
        return pack

    def all(self, tenant: str) -> list[Pack]:
        """The tenant's packs, oldest first."""
        found = []
        for key in self._keys(tenant):
            with contextlib.suppress(ObjectNotFound):
                found.append(load(self._store, key, Pack))
        return found

    def get(self, tenant: str, pack_id: str) -> Pack:
        """One of them. Raises PackNotFound."""
        missing = PackNotFound(f"There is no pack {pack_id[:40]}.")
        if not is_id(pack_id, "pck"):
            raise missing
        try:
            return load(self._store, keys.pack(tenant, pack_id), Pack)
        except ObjectNotFound:
            raise missing from None

    def delete(self, tenant: str, pack_id: str) -> None:
        """Remove one. Raises PackNotFound."""
        self._store.delete(keys.pack(tenant, self.get(tenant, pack_id).id))

    def _keys(self, tenant: str) -> list[str]:
        return list(self._store.list(keys.packs(tenant)))
