"""`python -m api`: serve on the address of the settings."""

from __future__ import annotations

import contextlib
import sys
from types import FrameType

import uvicorn

from api.server.app import create_app
from api.server.connections import BoundedProtocol, open_files
from api.server.event_reader import Feed
from api.server.memory import unmap_large_blocks
from core.errors import SettingsError, StoreUnavailable
from core.log import configure_logging
from core.settings import load_settings
from core.tracing import tracer

SHUTDOWN_SECONDS = 5
"""How long requests in progress may take after a signal to stop; those that wait for a job would take a minute."""


class Server(uvicorn.Server):
    """A server that ends the event streams at a signal to stop: they would last until SHUTDOWN_SECONDS are over."""

    feed: Feed

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn.Server."""
        self.feed.is_ending = True
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve until a signal to stop, and return the exit status.

    2 when the settings are wrong, or the store cannot be read for keys; 3 when the address cannot be listened on.
    """
    try:
        settings = load_settings()
        app = create_app(settings)
        tracer.start("hyperdreambooth-api")
    except (SettingsError, StoreUnavailable) as error:
        sys.stderr.write(f"{error.title()} {error.detail}\n")
        return 2
    configure_logging(settings.log_level)
    unmap_large_blocks()
    BoundedProtocol.most_connections = open_files()
    server = Server(
        uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            http=BoundedProtocol,  # of h11, which refuses long heads; httptools holds any
            ws="none",
            server_header=False,
            proxy_headers=False,  # public_address.py: of named proxies only
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )
    server.feed = app.state.feed
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    tracer.stop()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
