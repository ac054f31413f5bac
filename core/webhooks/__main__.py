"""`python -m core.webhooks`: the webhook dispatcher, until SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys

import anyio
from prometheus_client import REGISTRY

from core.errors import SettingsError
from core.heartbeat import BEAT_SECONDS, beat
from core.log import configure_logging
from core.metrics_server import serve_metrics
from core.queue.connection import connect
from core.settings import Settings, load_settings
from core.storage import open_store
from core.storage.encryption import open_cipher
from core.webhooks.dispatcher import Dispatcher
from core.webhooks.registry import Webhooks
from core.webhooks.schedule import Schedule
from core.webhooks.sender import Sender

_log = logging.getLogger("core.webhooks")


async def serve(settings: Settings) -> None:
    """Run the dispatcher until a signal comes; attempts in flight are then finished."""
    redis = connect(settings)
    dispatcher = Dispatcher(
        Webhooks(open_store(settings), redis, open_cipher(settings)),
        Schedule(redis),
        Sender(allow_private=settings.webhooks_allow_private),
    )
    stop = anyio.Event()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(dispatcher.run, stop)
            group.start_soon(_keep_beating, settings, stop)
            _log.info("dispatcher.ready")
            async for _ in signals:
                stop.set()
                break


async def _keep_beating(settings: Settings, stop: anyio.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(OSError):  # the check finds the file old
            beat(settings.heartbeat_file)
        with anyio.move_on_after(BEAT_SECONDS):
            await stop.wait()


def main() -> None:
    """Read the settings and run; wrong settings end the process with a message."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        serve_metrics(settings, REGISTRY)
        anyio.run(serve, settings)
    except SettingsError as error:
        sys.exit(f"{error.title()} {error.detail}")


if __name__ == "__main__":
    main()
