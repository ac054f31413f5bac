"""`python -m api`: serve on the address of the settings."""

from __future__ import annotations

import sys

import uvicorn

from api.app import create_app
from core.errors import SettingsError, StoreUnavailable
from core.log import configure_logging
from core.settings import load_settings

SHUTDOWN_SECONDS = 5
"""For requests that are being answered when it is told to stop; those that wait for a job would take a minute."""


def main() -> int:
    """Serve until told to stop; 2 when the settings are wrong, or the store cannot be asked for keys."""
    try:
        settings = load_settings()
        app = create_app(settings)
    except (SettingsError, StoreUnavailable) as error:
        sys.stderr.write(f"{error.title()} {error.detail}\n")
        return 2
    configure_logging(settings.log_level)
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
