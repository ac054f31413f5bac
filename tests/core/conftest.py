from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.local_redis import LocalRedis


@pytest.fixture(scope="session")
def local_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis
