"""What decoding one photo may take, enforced by the system on this process: `python -m api.server.decoding.child`.

A photo that takes more processor time ends the process: the decoders are C, and nothing gentler stops them.
"""

from __future__ import annotations

import contextlib
import math
import resource
import signal

from api.server.decoding.signatures import PhotoFormat

MEMORY_BYTES = 512 * 1024 * 1024
_SECONDS = 0.8
_SECONDS_A_MEGAPIXEL = {PhotoFormat.HEIC: 0.12, PhotoFormat.AVIF: 0.12}
"""Beside 0.05 for the others: about five times what the slowest of their photos take (decision 6)."""
_OPEN_FILES = 64


def limit_process() -> None:
    """For good: memory (address space), no files are written, no core is dumped.

    macOS knows no limit of the address space; there the parent's deadline alone holds.
    """
    limits = (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    )
    for kind, limit in limits:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def allow_seconds(seconds: float) -> None:
    """Processor seconds from now until SIGPROF ends this process; a second later SIGXCPU does, whatever was blocked."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def allow_waiting() -> None:
    """No limit of time, until the next photo comes."""
    signal.setitimer(signal.ITIMER_PROF, 0)


def seconds_for(kind: PhotoFormat | None = None, pixels: int = 0) -> float:
    """Processor seconds for a photo of this format and size; for its header, when nothing is known yet."""
    rate = _SECONDS_A_MEGAPIXEL.get(kind, 0.05) if kind else 0.0
    return _SECONDS + rate * pixels / 1e6
