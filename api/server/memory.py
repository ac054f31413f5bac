"""How memory goes back to the system: at once, since a photo of 25 megapixels takes a few hundred MB for a second.

glibc keeps what was freed, in each thread's arena apart, and learns to keep larger and larger blocks. With a fixed
limit every large block is mapped by itself and gone when it is freed.
"""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of mallopt(3)."""
_LARGE = 256 * 1024


def give_back_large_blocks() -> None:
    """For this process, where its C library is glibc; another one is let alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
