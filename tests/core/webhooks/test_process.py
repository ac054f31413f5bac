"""The dispatcher as the process that it is: it delivers, it is killed, it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import DeliveryState
from core.settings import Settings
from core.storage import open_store
from core.storage.encryption import open_cipher
from core.webhooks.registry import Webhooks
from core.webhooks.testing import ReceivedMessage, receiver

pytestmark = pytest.mark.process


@contextmanager
def dispatcher(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        **os.environ,
        "HDB_REDIS_URL": settings.redis_url,
        "HDB_DATA_DIR": str(settings.data_dir),
        "HDB_WEBHOOKS_ALLOW_PRIVATE": "true",
    }
    process = subprocess.Popen([sys.executable, "-m", "core.webhooks"], env=environ, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(done: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_a_killed_dispatcher_was_sending_is_sent_by_the_next(local_redis: LocalRedis, tmp_path: Path) -> None:
    settings = Settings(redis_url=local_redis.url, data_dir=tmp_path)
    redis = connect(settings)
    redis.flushall()
    webhooks = Webhooks(open_store(settings), redis, open_cipher(settings))
    received: list[ReceivedMessage] = []

    def behave(number: int) -> int:
        time.sleep(3.0 if number == 1 else 0.0)
        return 200

    with receiver(received, behave) as url:
        webhook = webhooks.create("acme", url, None, description=None, most=10)
        delivery = webhooks.test(webhook)
        with dispatcher(settings) as first:
            wait_for(lambda: len(received) == 1)
            first.kill()
        redis.flushall()  # and Redis comes back empty
        with dispatcher(settings) as second:

            def is_delivered() -> bool:
                found = webhooks.delivery("acme", webhook.id, delivery.id)
                return found is not None and found.state is DeliveryState.DELIVERED

            wait_for(is_delivered)
            second.send_signal(signal.SIGTERM)
            assert second.wait(10) == 0
    assert [message.headers["webhook-id"] for message in received] == [delivery.id] * 2
    assert list(webhooks.undelivered()) == []
    redis.close()


def test_wrong_settings_end_it_with_a_sentence(tmp_path: Path) -> None:
    environ = {**os.environ, "HDB_STORE": "ftp://nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "core.webhooks"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "settings are wrong" in done.stderr
    assert "Traceback" not in done.stderr
