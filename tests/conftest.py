"""For all tests: no hub, no AWS account, no settings of the developer's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from core.jobs.ledger import Ledger
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.settings import Settings
from tests.harness import FAKE, LIMITS, ServiceHarness

if TYPE_CHECKING:
    from deploy.local import LocalService

# At import, not in a fixture: libraries read some of these once, and wider fixtures set others again for their tests.
for name in [name for name in os.environ if name.startswith(("HDB_", "AWS_"))]:
    del os.environ[name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Where something answers as S3 does."""
    from moto.server import ThreadedMotoServer  # takes a second to import, and few need it

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def bucket(moto: str) -> Iterator[str]:
    """A bucket there, and the account for it."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="bucket")
        yield "bucket"


@pytest.fixture(scope="session")
def local_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def harness(local_redis: LocalRedis) -> Iterator[ServiceHarness]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield ServiceHarness(Ledger(redis, LIMITS))
    redis.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """The whole service, with the fake engine in the worker."""
    from deploy.local import LocalService

    with LocalService(tmp_path_factory.mktemp("service"), environ=FAKE) as running:
        yield running
