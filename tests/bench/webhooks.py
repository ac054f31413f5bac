"""How many webhook messages a second one dispatcher delivers here: `python -m tests.bench.webhooks --messages 500`.

Receivers on loopback, a store in a folder, a real Redis. First one receiver; then a second of another tenant that fails
one in ten, beside one that never answers. Ends with 0 when every message arrived and the rate of a receiver that
answers was at least RATE in both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil  # type: ignore[import-untyped]
from redis import Redis

from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.settings import Settings, load_settings
from core.storage import open_store
from core.storage.encryption import open_cipher
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.registry import Webhooks
from core.webhooks.testing import ReceivedMessage, receiver

RATE = 50.0
"""Messages a second that one receiver is to get."""
MOST_SECONDS = 120.0


class Receiver:
    """A receiver with its messages. `answer` gives the status of each message by its number, from 1."""

    def __init__(self, webhooks: Webhooks, tenant: str, url: str, received: list[ReceivedMessage]) -> None:
        self._webhooks, self._received = webhooks, received
        self._webhook = webhooks.create(tenant, url, None, description=None, most=100)
        self._sent: set[str] = set()

    def publish(self, messages: int) -> None:
        """So many events."""
        for number in range(messages):
            key = f"{time.time_ns()}-{number}"
            message = Message(self._webhook.tenant, WebhookEvent.JOB_SUCCEEDED, time.time(), key, {"job_id": key})
            self._sent.add(self._webhooks.enqueue(self._webhook, message).id)

    @property
    def arrived(self) -> int:
        """How many of the messages have arrived, at least once."""
        return len(self._sent & {each.headers["webhook-id"] for each in list(self._received)})

    @property
    def missing(self) -> int:
        """How many have not."""
        return len(self._sent) - self.arrived


@contextlib.contextmanager
def dispatcher(settings: Settings, log: Path) -> Iterator[psutil.Process]:
    """A dispatcher, as it runs anywhere."""
    environ = {
        **os.environ,
        "HDB_REDIS_URL": settings.redis_url,
        "HDB_DATA_DIR": str(settings.data_dir),
        "HDB_WEBHOOKS_ALLOW_PRIVATE": "true",
    }
    with (
        log.open("ab") as output,
        subprocess.Popen([sys.executable, "-m", "core.webhooks"], env=environ, stdout=output, stderr=output) as process,
    ):
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Rate:
    """Messages a second, and seconds of the dispatcher's processor for each message that arrived anywhere."""

    rate: float
    processor: float

    def __str__(self) -> str:
        return f"{self.rate:.0f} messages/s, {1000 * self.processor:.1f} ms of the processor each"


def timed(settings: Settings, folder: Path, quick: Receiver, all_of_them: list[Receiver], messages: int) -> Rate:
    """Publish so many messages to each, start a dispatcher, and wait until `quick` has got its own."""
    for each in all_of_them:
        each.publish(messages)
    before = sum(each.arrived for each in all_of_them)
    until = time.monotonic() + MOST_SECONDS
    with dispatcher(settings, folder / "dispatcher.log") as process:
        while quick.missing == messages and time.monotonic() < until:
            time.sleep(0.005)
        began, used = time.monotonic(), process.cpu_times()
        while quick.missing and time.monotonic() < until:
            time.sleep(0.02)
        seconds, spent = time.monotonic() - began, process.cpu_times()
        arrived = sum(each.arrived for each in all_of_them) - before
    return Rate(messages / seconds, (spent.user + spent.system - used.user - used.system) / arrived)


def measure(folder: Path, messages: int) -> bool:
    """Print both rates. Whether they are as they should be."""
    with LocalRedis(folder / "redis") as server, contextlib.ExitStack() as stack:
        settings = load_settings(redis_url=server.url, data_dir=str(folder))
        redis: Redis = connect(settings)
        stack.callback(redis.close)
        webhooks = Webhooks(open_store(settings), redis, open_cipher(settings))

        def receiving(tenant: str, answer: Callable[[int], int]) -> Receiver:
            received: list[ReceivedMessage] = []
            return Receiver(webhooks, tenant, stack.enter_context(receiver(received, answer)), received)

        def hangs(_: int) -> int:
            over.wait(MOST_SECONDS)
            return 200

        over = Event()
        stack.callback(over.set)
        quick = receiving("a", lambda _: 200)
        alone = timed(settings, folder, quick, [quick], messages)
        print(f"one receiver: {alone} ({messages} messages, {quick.missing} missing)")
        failing, silent = receiving("b", lambda number: 500 if number % 10 == 3 else 200), receiving("c", hangs)
        beside = timed(settings, folder, quick, [failing, silent, quick], messages)
        print(f"beside one that fails one in ten and one that hangs: {beside} ({quick.missing} missing)")
        return min(alone.rate, beside.rate) >= RATE and not quick.missing


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="tests.bench.webhooks", description=__doc__)
    parser.add_argument("--messages", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hdb-webhooks-") as folder:
        return int(not measure(Path(folder), args.messages))


if __name__ == "__main__":
    sys.exit(main())
