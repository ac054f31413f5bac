"""`python -m worker`: the worker with the options it needs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from core.errors import SettingsError
from worker.metrics import share

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
LOAD_FAILED = 1
"""The exit status of a worker whose model cannot be loaded; the last line of its log says why."""


def main() -> None:
    """Run until told to stop; options on the command line are Celery's."""
    # Threads that wait for each other by spinning starve each other beside a busy neighbour.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory(prefix="hdb-metrics-", ignore_cleanup_errors=True) as folder:
        share(Path(folder))
        try:
            from worker.app import app, shared  # noqa: PLC0415 - importing it reads the settings, which may be wrong

            try:
                app.worker_main([*OPTIONS, *sys.argv[1:]])
            finally:
                if shared.load_failed.value:
                    sys.exit(LOAD_FAILED)
        except SettingsError as error:
            sys.exit(f"{error.title()} {error.detail}")


if __name__ == "__main__":
    main()
