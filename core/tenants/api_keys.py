"""API keys and tenants. The store has only hashes: a key can be checked, and never be read again.

keys/{id}.json       one document a key: whose it is, what it is for, its hash, when it was made and revoked

A key reads `hdb_{id}_{secret}`: the id says which document to look at, the secret is 256 random bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator

from core.errors import KeyNotFound, ObjectNotFound, TenantRefused
from core.records import Record
from core.storage import Store, keys

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_KEY = re.compile(r"hdb_([0-9a-f]{16})_[0-9a-f]{64}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")


class ApiKey(Record):
    """What is known of a key: `hash` is the SHA-256 of the whole key, in hex; a revoked key opens nothing."""

    id: str
    tenant: str
    name: str
    hash: str
    created_at: float
    revoked_at: float | None = None


def check_tenant(name: str) -> str:
    """`name` itself. Raises TenantRefused when it cannot be a part of a store key, or has another use there."""
    if not _TENANT.fullmatch(name):
        raise TenantRefused("A tenant's name has 1 to 40 small letters, digits and hyphens.", field="tenant")
    if name in keys.RESERVED:
        raise TenantRefused(f"{name} has a meaning of its own here; take another name.", field="tenant")
    return name


def key_id(key: str) -> str | None:
    """The id in a key, or None when it is not one of ours."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def hash_of(key: str) -> str:
    """The SHA-256 of a key, in hex. A fast hash is right for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The keys in a store. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        """A new key for a tenant, and the key itself, which is kept nowhere. Raises TenantRefused."""
        identifier = secrets.token_hex(8)
        key = f"hdb_{identifier}_{secrets.token_hex(32)}"
        known = ApiKey(id=identifier, tenant=check_tenant(tenant), name=name, hash=hash_of(key), created_at=time.time())
        self._put(known)
        return known, key

    def get(self, identifier: str) -> ApiKey:
        """What is known of a key, also of a revoked one. Raises KeyNotFound."""
        try:
            if not _KEY_ID.fullmatch(identifier):
                raise ObjectNotFound
            return ApiKey.model_validate_json(self._store.get(keys.api_key(identifier)))
        except ObjectNotFound:
            raise KeyNotFound(f"There is no key {identifier[:40]}.") from None

    def all(self) -> Iterator[ApiKey]:
        """Every key, revoked ones as well."""
        for key in self._store.list(keys.API_KEYS):
            yield ApiKey.model_validate_json(self._store.get(key))

    def is_empty(self) -> bool:
        """Whether there was never a key. A revoked one counts: revoking the last key must not open the door."""
        return next(iter(self._store.list(keys.API_KEYS)), None) is None

    def revoke(self, identifier: str) -> ApiKey:
        """Make a key worthless. Revoking it again changes nothing. Raises KeyNotFound."""
        known = self.get(identifier)
        if known.revoked_at is None:
            known = known.model_copy(update={"revoked_at": time.time()})
            self._put(known)
        return known

    def _put(self, known: ApiKey) -> None:
        self._store.put(keys.api_key(known.id), known.model_dump_json().encode(), content_type="application/json")
