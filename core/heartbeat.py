"""A file that a process touches while it is healthy: what a container's health check reads.

`python -m core.heartbeat` exits with 1 when the file of HDB_HEARTBEAT_FILE is older than a minute. It needs neither
Redis nor the store: an outage of these is no reason to restart a worker that has its model loaded.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


def beat(file: Path | None) -> None:
    """Touch the file, if there is to be one."""
    if file is not None:
        file.touch()


def is_fresh(file: Path, *, stale: float = STALE_SECONDS) -> bool:
    """Whether the file was touched in the last `stale` seconds."""
    try:
        return time.time() - file.stat().st_mtime <= stale
    except OSError:
        return False


if __name__ == "__main__":
    named = os.environ.get("HDB_HEARTBEAT_FILE")
    sys.exit(not named or not is_fresh(Path(named)))
