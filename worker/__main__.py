"""`python -m worker`: the worker with the options it needs."""

from __future__ import annotations

import sys

from core.errors import SettingsError

OPTIONS = [
    "--quiet",
    "worker",
    "--pool=prefork",
    "--concurrency=1",
    "-O",
    "fair",
    "--disable-prefetch",
    "--without-gossip",
    "--without-mingle",
]


def main() -> None:
    """Run until told to stop; options on the command line are Celery's."""
    try:
        from worker.app import app  # noqa: PLC0415 - importing it reads the settings, which may be wrong
    except SettingsError as error:
        sys.exit(f"{error.title()} {error.detail}")
    app.worker_main([*OPTIONS, *sys.argv[1:]])


if __name__ == "__main__":
    main()
