"""API keys and tenants. The store has only the hash of a key: it can be verified, but never be read again.

keys/{id}.json       one document a key: its tenant, its name, its hash, when it was created and revoked

A key is `hdb_{id}_{secret}`: the id names its document, the secret is 256 random bits. A test key begins with
`hdb_test_`, and opens what its tenant's test keys have made, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Iterator

from core.errors import KeyNotFound, ObjectNotFound, TenantRefused
from core.ids import is_tenant, tenant_of_tests
from core.records import Record
from core.storage import Store, keys
from core.storage.stored import dump, load

_KEY = re.compile(r"hdb_(?:test_)?([0-9a-f]{16})_[0-9a-f]{64}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")


class ApiKey(Record):
    """A key as it is stored: `hash` is the SHA-256 of the whole key, in hex; a revoked key is not accepted."""

    id: str
    tenant: str
    name: str
    hash: str
    created_at: float
    revoked_at: float | None = None
    test: bool = False

    @property
    def opens(self) -> str:
        """The tenant whose resources its caller sees."""
        return tenant_of_tests(self.tenant) if self.test else self.tenant


def check_tenant(name: str) -> str:
    """The name itself. Raises TenantRefused when it cannot be a part of a store key, or is reserved there."""
    if not is_tenant(name):
        raise TenantRefused("A tenant's name has 1 to 40 small letters, digits and hyphens.", field="tenant")
    if name in keys.RESERVED:
        raise TenantRefused(f"{name} has a meaning of its own here; take another name.", field="tenant")
    return name


def key_id(key: str) -> str | None:
    """The id in a key, or None when it does not have the form of one."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def hash_of(key: str) -> str:
    """The SHA-256 of a key, in hex. A fast hash is enough for 256 random bits: they cannot be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The API keys in a store. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, tenant: str, name: str, *, test: bool = False) -> tuple[ApiKey, str]:
        """Create a key for a tenant: its record, and the key itself, which is not stored. Raises TenantRefused."""
        identifier = secrets.token_hex(8)
        key = f"hdb_{'test_' * test}{identifier}_{secrets.token_hex(32)}"
        known = ApiKey(
            id=identifier,
            tenant=check_tenant(tenant),
            name=name,
            hash=hash_of(key),
            created_at=time.time(),
            test=test,
        )
        self._put(known)
        return known, key

    def get(self, identifier: str) -> ApiKey:
        """The record of a key, revoked or not. Raises KeyNotFound."""
        try:
            if not _KEY_ID.fullmatch(identifier):
                raise ObjectNotFound
            return load(self._store, keys.api_key(identifier), ApiKey)
        except ObjectNotFound:
            raise KeyNotFound(f"There is no key {identifier[:40]}.") from None

    def all(self) -> Iterator[ApiKey]:
        """The records of all keys, including revoked ones."""
        for key in self._store.list(keys.API_KEYS):
            with contextlib.suppress(ObjectNotFound):
                yield load(self._store, key, ApiKey)

    def is_empty(self) -> bool:
        """Whether there was never a key. Revoked ones count: revoking the last key must not make the service public."""
        return next(iter(self._store.list(keys.API_KEYS)), None) is None

    def revoke(self, identifier: str) -> ApiKey:
        """Revoke a key, and return its record. Revoking it again changes nothing. Raises KeyNotFound."""
        known = self.get(identifier)
        if known.revoked_at is None:
            known = known.model_copy(update={"revoked_at": time.time()})
            self._put(known)
        return known

    def _put(self, known: ApiKey) -> None:
        self._store.put(keys.api_key(known.id), dump(known), content_type="application/json")
