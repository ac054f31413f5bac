"""Connections to Redis with bounded waits, and its outages as one error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from core.errors import BrokerUnavailable
from core.settings import Settings

_NOT_NOW = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How errors of a Redis begin that cannot write now: no disk, no replica, or a script that takes too long."""

_OUTAGES = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError)


def connect(settings: Settings, *, patience: float = 0.8) -> Redis:
    """A Redis client that decodes to str, and answers or raises within `patience` seconds; connects lazily."""
    return Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), **_options(patience))


def connect_async(settings: Settings, *, patience: float = 0.8) -> AsyncRedis:
    """The same for an event loop; close it there."""
    return AsyncRedis.from_url(settings.redis_url, retry=AsyncRetry(NoBackoff(), 0), **_options(patience))


def _options(patience: float) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_connect_timeout": patience / 2,
        "socket_timeout": patience,
        "socket_keepalive": True,
        "health_check_interval": 5,
    }


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Turn outages of Redis into BrokerUnavailable; errors in our commands are raised unchanged."""
    try:
        yield
    except _OUTAGES as error:
        raise BrokerUnavailable("The queue cannot be reached; try again in a moment.") from error
    except ResponseError as error:
        if not str(error).startswith(_NOT_NOW):
            raise
        raise BrokerUnavailable("The queue cannot be written to; try again in a moment.") from error
