"""The store as a bucket of S3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import ObjectNotFound, StoreUnavailable
from core.storage.keys import check_key, check_prefix

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3 import S3Client

_PROBE = "probe"
MOST_AT_ONCE = 1000
"""Keys that a request for many deletions may hold."""
_WRITTEN_SECONDS = 60.0
"""How long a write that succeeded proves that others would."""
_NOT_THIS_WAY = (400, 405, 411, 501)
"""How servers answer that cannot delete many objects with one request, or want another header with it."""
_NO_VERSIONS = ("AccessDenied", "MethodNotAllowed", "NotImplemented")
"""What is answered when it cannot be known whether a bucket has versions: then it is taken to have none."""
_log = logging.getLogger(__name__)


class S3Store:
    """A bucket of S3, or of anything that speaks it. Belongs to the process that made it."""

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None, region: str | None = None
    ) -> None:
        """Keys are stored under `prefix`. Credentials come from where boto3 always finds them."""
        config = Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"total_max_attempts": 3, "mode": "standard"},
            max_pool_connections=32,
            # Servers other than Amazon's do not all know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: S3Client = boto3.session.Session().client(
            "s3", endpoint_url=endpoint_url, region_name=region, config=config
        )
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._writable_until = 0.0

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """See Store."""
        name = self._prefix + check_key(key)
        try:
            with _s3_errors(key):
                self._client.put_object(Bucket=self._bucket, Key=name, Body=data, ContentType=content_type)
        except StoreUnavailable:
            self._writable_until = 0.0
            raise
        self._writable_until = time.monotonic() + _WRITTEN_SECONDS

    def get(self, key: str) -> bytes:
        """See Store."""
        name = self._prefix + check_key(key)
        with _s3_errors(key):
            return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

    def exists(self, key: str) -> bool:
        """See Store."""
        name = self._prefix + check_key(key)
        try:
            with _s3_errors(key):
                self._client.head_object(Bucket=self._bucket, Key=name)
        except ObjectNotFound:
            return False
        return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """See Store."""
        start = {"StartAfter": self._prefix + after} if after else {}
        query: Any = {"Bucket": self._bucket, "Prefix": self._prefix + check_prefix(prefix), **start}
        with _s3_errors(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(**query):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """See Store."""
        name = self._prefix + check_key(key)
        with _s3_errors(key):
            for each in self._versions(name, whole=True) if self._is_versioned else [{"Key": name}]:
                self._client.delete_object(Bucket=self._bucket, **each)

    def delete_prefix(self, prefix: str) -> None:
        """See Store."""
        if not self._is_versioned:
            self.delete_all(list(self.list(check_prefix(prefix, folder=True))))
            return
        with _s3_errors(prefix):
            versions = list(self._versions(self._prefix + check_prefix(prefix, folder=True)))
        self._delete(versions)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See Store."""
        names = [self._prefix + check_key(key) for key in keys]
        if not self._is_versioned:
            self._delete([{"Key": name} for name in names])
            return
        with _s3_errors(self._bucket):
            versions = [each for name in names for each in self._versions(name, whole=True)]
        self._delete(versions)

    @cached_property
    def _is_versioned(self) -> bool:
        """Whether the bucket keeps what is overwritten or deleted: then each version is deleted by its id."""
        with _s3_errors(self._bucket):
            try:
                return "Status" in self._client.get_bucket_versioning(Bucket=self._bucket)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code not in _NO_VERSIONS:
                    raise
                _log.warning("store.versioning_unknown", extra={"code": code})
        return False

    def _versions(self, prefix: str, *, whole: bool = False) -> Iterator[Any]:
        """All versions of the objects whose names begin so, or are exactly that (`whole`); markers of deletions too."""
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
            found: Any = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            for item in found:
                if not whole or item["Key"] == prefix:
                    yield {"Key": item["Key"], "VersionId": item["VersionId"]}

    def _delete(self, objects: Sequence[Any]) -> None:
        """MOST_AT_ONCE a request; one a request where that is refused."""
        for start in range(0, len(objects), MOST_AT_ONCE):
            some = objects[start : start + MOST_AT_ONCE]
            if not self._delete_many(some):
                with _s3_errors(self._bucket):
                    for each in some:
                        self._client.delete_object(Bucket=self._bucket, **each)

    def _delete_many(self, objects: Sequence[Any]) -> bool:
        """Whether all of them are deleted. False: the server does not take this request, or kept some of them."""
        with _s3_errors(self._bucket):
            try:
                reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status in _NOT_THIS_WAY:
                    return False
                raise
        return not reply.get("Errors")

    def ping(self) -> None:
        """See Store. Something is written when nothing was for a minute, or the last write failed."""
        with _s3_errors(self._bucket):
            self._client.head_bucket(Bucket=self._bucket)
        if time.monotonic() > self._writable_until:
            self.put(_PROBE, b"")
            self.delete(_PROBE)


def _add_md5(request: AWSRequest, **_: object) -> None:
    """Google's, Ceph's and older MinIO's servers want this header with many deletions; botocore left it out in 1.36."""
    body: Any = request.body or b""
    data = body.encode() if isinstance(body, str) else body
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


@contextlib.contextmanager
def _s3_errors(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "404", "NotFound"):
            raise ObjectNotFound(f"no object {key}") from None
        raise StoreUnavailable(f"the store answered {code or 'with an error'}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"the store does not answer: {type(error).__name__}") from error
