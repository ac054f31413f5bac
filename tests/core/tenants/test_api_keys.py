from __future__ import annotations

import pytest

from core.errors import KeyNotFound, TenantRefused
from core.storage import check_key, keys
from core.tenants.api_keys import ApiKeys, check_tenant, hash_of, key_id
from core.testing import MemoryStore


def test_only_a_hash_is_stored() -> None:
    store = MemoryStore()
    known, key = ApiKeys(store).create("acme", "ci")
    assert key_id(key) == known.id
    (document,) = store.objects.values()
    assert key.rpartition("_")[2].encode() not in document
    assert hash_of(key).encode() in document
    assert list(store.objects) == [f"keys/{known.id}.json"]


def test_a_key_is_revoked_once_and_stays_in_the_list() -> None:
    ring = ApiKeys(MemoryStore())
    assert ring.is_empty()
    known, _ = ring.create("acme", "ci")
    other, _ = ring.create("acme", "laptop")
    revoked = ring.revoke(known.id)
    assert ring.revoke(known.id) == revoked == ring.get(known.id)
    assert {each.id: each.revoked_at is None for each in ring.all()} == {known.id: False, other.id: True}
    ring.revoke(other.id)
    assert not ring.is_empty(), "revoking the last key must not make the service public"


@pytest.mark.parametrize("identifier", ["", "nothing", "../x", "0" * 16, "0" * 500])
def test_unknown_keys_are_not_found(identifier: str) -> None:
    with pytest.raises(KeyNotFound):
        ApiKeys(MemoryStore()).revoke(identifier)


@pytest.mark.parametrize("key", ["", "hdb_", "hdb_0_0", f"hdb_{'0' * 16}_{'0' * 63}", f"HDB_{'0' * 16}_{'0' * 64}"])
def test_what_is_no_key_has_no_id(key: str) -> None:
    assert key_id(key) is None


@pytest.mark.parametrize("name", ["", "Acme", "a b", "a/b", "..", "-a", "a_b", "x" * 41, "é", "a\n", *keys.RESERVED])
def test_names_that_could_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(TenantRefused):
        ApiKeys(MemoryStore()).create(name, "x")


@pytest.mark.parametrize("name", ["local", "acme", "a", "0", "a-b-3", "x" * 40])
def test_good_names_are_parts_of_store_keys(name: str) -> None:
    assert check_key(f"{check_tenant(name)}/x")


def test_everything_beside_the_tenants_is_reserved() -> None:
    """So that no tenant's name leads into another part of the store."""
    folders = {value for name, value in vars(keys).items() if name.isupper() and str(value).endswith("/")}
    assert len(folders) >= 6
    assert {folder.partition("/")[0] for folder in folders} <= keys.RESERVED
