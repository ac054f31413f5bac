"""The store as a bucket of S3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import ObjectNotFound, StoreUnavailable
from core.storage.keys import check_key, check_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


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
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """See Store."""
        name = self._prefix + check_key(key)
        with _s3_errors(key):
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data, ContentType=content_type)

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
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def delete_prefix(self, prefix: str) -> None:
        """See Store. A thousand keys a request, which is what one may hold."""
        keys = list(self.list(check_prefix(prefix, folder=True)))
        for start in range(0, len(keys), 1000):
            names: Any = [{"Key": self._prefix + key} for key in keys[start : start + 1000]]
            with _s3_errors(prefix):
                reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": names, "Quiet": True})
            if reply.get("Errors"):
                raise StoreUnavailable(f"{len(reply['Errors'])} objects could not be deleted; try again")

    def ping(self) -> None:
        """See Store."""
        with _s3_errors(self._bucket):
            self._client.head_bucket(Bucket=self._bucket)


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
