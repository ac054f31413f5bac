"""One suite over all stores: they must not be told apart."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

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


GATEWAY = Path(__file__).parents[4] / "shared" / "service" / "radosgw.sh"
SERVERS = {
    "s3": ("moto", "bucket"),
    "s3-wants-md5": ("strict", "bucket"),
    "s3-deletes-one-by-one": ("simple", "bucket"),
    "s3-versioned": ("moto", "versioned"),
    "s3-versioned-deletes-one-by-one": ("simple", "versioned"),
    "s3-encrypted": ("moto", "encrypted"),
    "s3-ceph": ("radosgw", "ceph_bucket"),
}
"""Kinds of server and of bucket: the fixtures of what answers as they do."""


def is_many_deletions(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] == "POST" and "delete" in environ.get("QUERY_STRING", "")


def without_md5(environ: dict[str, Any], body: bytes) -> tuple[str, str] | None:
    """What Google's, Ceph's and older MinIO's servers refuse."""
    right = base64.b64encode(hashlib.md5(body).digest()).decode()
    if is_many_deletions(environ) and environ.get("HTTP_CONTENT_MD5") != right:
        return "400 Bad Request", "MissingContentMD5"
    return None


def many_deletions(environ: dict[str, Any], body: bytes) -> tuple[str, str] | None:
    return ("501 Not Implemented", "NotImplemented") if is_many_deletions(environ) else None


@contextmanager
def refusing(refuse: Callable[[dict[str, Any], bytes], tuple[str, str] | None]) -> Iterator[str]:
    """A server of S3 that refuses some requests, with a status and a code; gives its address."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    s3 = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if refusal := refuse(environ, body):
            start(refusal[0], [("Content-Type", "application/xml")])
            return [f'<?xml version="1.0"?><Error><Code>{refusal[1]}</Code></Error>'.encode()]
        return s3(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def strict(moto: str) -> Iterator[str]:
    with refusing(without_md5) as url:
        yield url


@pytest.fixture(scope="module")
def simple(moto: str) -> Iterator[str]:
    with refusing(many_deletions) as url:
        yield url


def client_of(url: str) -> Any:
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")


@pytest.fixture(scope="module")
def versioned(moto: str, bucket: str) -> str:
    client = client_of(moto)
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    client.close()
    return "versioned"


@pytest.fixture(scope="module")
def encrypted(moto: str, bucket: str) -> str:
    client = client_of(moto)
    client.create_bucket(Bucket="encrypted")
    rule: Any = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket="encrypted", ServerSideEncryptionConfiguration={"Rules": [rule]})
    client.close()
    return "encrypted"


@pytest.fixture(scope="module")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ceph's gateway, which a script beside the repository starts where its packages are installed.

    Skipped where the three servers do not start, or do not know the account within a minute: on a machine that is busy
    with other tests their first start sometimes fails, and says nothing about this store.
    """
    if not (GATEWAY.is_file() and shutil.which("radosgw") and shutil.which("ceph-osd")):
        pytest.skip(f"needs {GATEWAY.name} and Debian's radosgw, ceph-mon and ceph-osd")
    folder, url = tmp_path_factory.mktemp("ceph"), "http://127.0.0.1:16281"
    try:
        try:
            subprocess.run(["bash", GATEWAY, folder], check=True, timeout=240, capture_output=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{GATEWAY.name} did not start: {(error.stderr or b'')[-500:].decode(errors='replace')}")
        with pytest.MonkeyPatch.context() as patch:
            ceph_account(patch)
            deadline = time.monotonic() + 60
            while not (known := knows_the_account(url)) and time.monotonic() < deadline:
                time.sleep(0.5)
            if not known:
                pytest.skip(f"{GATEWAY.name} started, but its gateway does not know the account it made")
        yield url
    finally:
        for file in sorted((folder / "run").glob("*.pid")):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


def ceph_account(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_ACCESS_KEY_ID", "hdbkey")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "hdbsecret")


def knows_the_account(url: str) -> bool:
    client = client_of(url)
    try:
        client.list_buckets()
    except (ClientError, EndpointConnectionError):
        return False
    finally:
        client.close()
    return True


@pytest.fixture
def ceph_bucket(radosgw: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket there, and the account for it."""
    ceph_account(monkeypatch)
    client = client_of(radosgw)
    client.create_bucket(Bucket="ceph")
    client.close()
    return "ceph"


@pytest.fixture(params=["memory", "folder", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    endpoint, name = (request.getfixturevalue(each) for each in SERVERS[request.param])
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


def test_some_are_deleted_and_those_that_are_missing_are_no_error(store: Store) -> None:
    for key in ("t/a/1", "t/a/2", "t/b"):
        store.put(key, b"")
    store.delete_all(["t/a/1", "t/b", "t/nothing"])
    store.delete_all([])
    assert list(store.list("")) == ["t/a/2"]


def test_more_objects_than_fit_into_a_request_are_deleted(
    bucket: str, strict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.storage.s3.MOST_AT_ONCE", 2)
    store = S3Store(bucket, f"some/{uuid.uuid4().hex}", endpoint_url=strict, region="us-east-1")
    for number in range(5):
        store.put(f"t/a/{number}", b"")
    store.delete_prefix("t/a/")
    assert list(store.list("")) == []


def test_no_version_is_left_of_what_is_deleted(moto: str, versioned: str) -> None:
    store = S3Store(versioned, "erased", endpoint_url=moto, region="us-east-1")

    def left() -> list[str]:
        client = client_of(moto)
        found = client.list_object_versions(Bucket=versioned, Prefix="erased/")
        client.close()
        return [each["Key"] for kind in ("Versions", "DeleteMarkers") for each in found.get(kind, [])]

    for key in ("t/a/1", "t/a/2", "t/ab", "t/abc"):
        store.put(key, b"a face")
        store._client.delete_object(Bucket=versioned, Key=f"erased/{key}")  # as another program does
        store.put(key, b"another")
    store.delete_prefix("t/a/")
    assert set(left()) == {"erased/t/ab", "erased/t/abc"}
    store.delete("t/ab")
    assert set(left()) == {"erased/t/abc"}
    store.delete_all(["t/abc", "t/abcd"])
    assert left() == []


def test_a_clock_that_is_wrong_is_said_to_be(bucket: str) -> None:
    with refusing(lambda *_: ("403 Forbidden", "RequestTimeTooSkewed")) as url:
        store = S3Store(bucket, endpoint_url=url, region="us-east-1")
        for use in (store.ping, lambda: store.put("a", b""), lambda: store.get("a"), lambda: store.delete_all(["a"])):
            with pytest.raises(StoreUnavailable, match=r"RequestTimeTooSkewed|403"):
                use()


def test_what_a_server_does_not_delete_is_an_error(bucket: str) -> None:
    def refuse(environ: dict[str, Any], body: bytes) -> tuple[str, str] | None:
        deletes = is_many_deletions(environ) or environ["REQUEST_METHOD"] == "DELETE"
        return ("403 Forbidden", "AccessDenied") if deletes else None

    with refusing(refuse) as url:
        store = S3Store(bucket, f"some/{uuid.uuid4().hex}", endpoint_url=url, region="us-east-1")
        store.put("t/a", b"")
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            store.delete_prefix("t/")


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


def test_a_full_folder_is_not_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store")
    store.ping()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.ping()
    assert list(store.root.iterdir()) == []


def test_a_bucket_that_refuses_writes_is_not_healthy_until_it_takes_one(moto: str, bucket: str) -> None:
    store = S3Store(bucket, "refuses", endpoint_url=moto, region="us-east-1")
    store.ping()
    put = store._client.put_object
    store._client.put_object = lambda **_: (_ for _ in ()).throw(EndpointConnectionError(endpoint_url=moto))  # type: ignore[method-assign]
    store.ping()  # something was written a moment ago
    for act in (lambda: store.put("a/b", b""), store.ping):
        with pytest.raises(StoreUnavailable):
            act()
    store._client.put_object = put  # type: ignore[method-assign]
    store.ping()
    assert list(store.list("")) == []
