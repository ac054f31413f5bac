from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.settings import Settings
from core.testing import CIPHER, MemoryStore
from core.webhooks.registry import Webhooks
from core.webhooks.schedule import Schedule


@pytest.fixture
def redis(local_redis: LocalRedis) -> Iterator[Redis]:
    redis = connect(Settings(redis_url=local_redis.url))
    redis.flushall()
    yield redis
    redis.close()


@pytest.fixture
def webhooks(redis: Redis) -> Webhooks:
    return Webhooks(MemoryStore(), redis, CIPHER)


@pytest.fixture
def schedule(redis: Redis) -> Schedule:
    return Schedule(redis)
