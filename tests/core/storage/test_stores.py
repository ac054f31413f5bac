"""One suite over all stores: they must not be told apart."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import ObjectNotFound, SettingsError, StoreUnavailable
from core.settings import Settings
from core.storage import FolderStore, S3Store, Store, open_store
from core.testing import MemoryStore

BAD_KEYS = [
    "",
    "/etc/passwd",
    "a//b",
    "../a",
    "a/../b",
    "a/..",
    ".hidden",
    "a/.part",
    "a\\b",
    "a b",
    "a/",
    "é",
    "a\x00b",
]


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    endpoint = request.getfixturevalue("moto")
    name = request.getfixturevalue("bucket")
    return S3Store(name, f"some/{uuid.uuid4().hex}", endpoint_url=endpoint, region="us-east-1")


def test_what_is_put_can_be_got(store: Store) -> None:
    store.put("local/jobs/a.json", b"{}", content_type="application/json")
    assert store.get("local/jobs/a.json") == b"{}"
    assert store.exists("local/jobs/a.json")


def test_a_second_put_replaces_the_first(store: Store) -> None:
    store.put("a", b"one")
    store.put("a", b"")
    assert store.get("a") == b""


def test_what_is_missing_is_said_to_be_missing(store: Store) -> None:
    store.put("a/b", b"")
    for key in ("nothing", "a", "a/b/c"):
        assert not store.exists(key)
        with pytest.raises(ObjectNotFound):
            store.get(key)
        store.delete(key)
    assert store.exists("a/b")


def test_list_gives_sorted_keys_under_any_prefix(store: Store) -> None:
    for key in ("t/b/1", "t/a/2", "t/a/10", "t/a-b/1", "u/a"):
        store.put(key, b"")
    assert list(store.list("t/")) == ["t/a-b/1", "t/a/10", "t/a/2", "t/b/1"]
    assert list(store.list("t/a")) == ["t/a-b/1", "t/a/10", "t/a/2"]
    assert list(store.list("t/", after="t/a/10")) == ["t/a/2", "t/b/1"]
    assert len(list(store.list(""))) == 5
    assert list(store.list("nothing/")) == []


def test_list_goes_on_after_any_key(store: Store) -> None:
    keys = sorted(["t/a", "t/a-b/1", "t/a.json", "t/b/1", "t/b/2/x", "t/b/2/y", "t/b/3", "t/c"])
    for key in reversed(keys):
        store.put(key, b"")
    for index, key in enumerate(keys):
        assert list(store.list("t/", after=key)) == keys[index + 1 :]
    assert list(store.list("t/b/", after="t/b/2/x")) == ["t/b/2/y", "t/b/3"]
    assert list(store.list("t/b", after="t/b/2")) == ["t/b/2/x", "t/b/2/y", "t/b/3"]
    assert list(store.list("t/a", after="t/b")) == []
    walk = store.list("t/")
    assert next(walk) == "t/a"
    store.delete_prefix("t/b/")
    assert list(walk)[-1] == "t/c"


def test_delete_prefix_takes_all_of_it_and_nothing_else(store: Store) -> None:
    for key in ("t/a/1", "t/a/b/2", "t/ab/1"):
        store.put(key, b"")
    store.delete_prefix("t/a/")
    store.delete_prefix("t/a/")
    assert list(store.list("")) == ["t/ab/1"]


def test_no_key_leaves_the_store(store: Store) -> None:
    uses: list[Callable[[str], object]] = [
        store.get,
        store.exists,
        store.delete,
        lambda key: store.put(key, b""),
    ]
    for key, use in itertools.product(BAD_KEYS, uses):
        with pytest.raises(ValueError, match="not a store key"):
            use(key)


def test_only_folders_are_deleted_whole(store: Store) -> None:
    for prefix in ("../", "/", "a/../", "a", ""):
        with pytest.raises(ValueError, match="not a store prefix"):
            store.delete_prefix(prefix)


def test_a_healthy_store_answers(store: Store) -> None:
    store.ping()


def test_writers_never_show_half_an_object(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    sizes = {100_000, 200_000}

    def write() -> None:
        for size in list(sizes) * 5:
            store.put("a/b", b"x" * size)

    store.put("a/b", b"x" * 100_000)
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(store.get("a/b")) in sizes
    assert list(store.list("")) == ["a/b"]


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("a", b"face")
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    store = FolderStore(tmp_path / "store")
    for use in (store.ping, lambda: store.put("a", b"")):
        with pytest.raises(StoreUnavailable):
            use()


def test_s3_that_does_not_answer_is_unavailable(bucket: str) -> None:
    store = S3Store(bucket, endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.get("a")


def test_a_bucket_that_is_not_there_is_unavailable(moto: str, bucket: str) -> None:
    store = S3Store(bucket[::-1], endpoint_url=moto, region="us-east-1")
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.put("a", b"")


def test_the_settings_choose_the_store(tmp_path: Path, bucket: str, moto: str) -> None:
    assert isinstance(open_store(Settings(store=f"file://{tmp_path}")), FolderStore)
    assert isinstance(open_store(Settings(store=f"s3://{bucket}/x", s3_endpoint_url=moto, s3_region="a")), S3Store)
    with pytest.raises(SettingsError):
        open_store(Settings(store="s3://"))


def test_a_folder_that_has_become_empty_goes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    for key in ("acme/about/one/a", "acme/about/two/b", "acme/c"):
        store.put(key, b"")
    store.delete("acme/about/one/a")
    assert [folder.name for folder in (store.root / "acme" / "about").iterdir()] == ["two"]
    store.delete_prefix("acme/about/two/")
    assert [file.name for file in (store.root / "acme").iterdir()] == ["c"]
    store.delete("acme/c")
    assert list(store.root.iterdir()) == []


def test_folders_that_come_and_go_lose_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")

    def come_and_go(name: str) -> None:
        for _ in range(200):
            store.put(f"a/b/{name}", b"here")
            assert store.get(f"a/b/{name}") == b"here"
            store.delete(f"a/b/{name}")

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(come_and_go, ("one", "two", "three")))
    assert list(store.root.iterdir()) == []
