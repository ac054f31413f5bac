from __future__ import annotations

from pathlib import Path

from api.memory import give_back_large_blocks


def resident() -> float:
    """MB of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def test_what_was_freed_is_given_back():
    give_back_large_blocks()
    before = resident()
    blocks = [bytearray(b"x" * 2**20) for _ in range(64)]
    grown = resident()
    assert grown - before > 50
    del blocks
    assert resident() - before < 8
