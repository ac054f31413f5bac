"""In a process of its own: what other tests leave in this one would be counted as well."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from pathlib import Path
from api.server.memory import unmap_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

unmap_large_blocks()
before = resident()
blocks = [bytearray(b"x" * 2**20) for _ in range(64)]
grown = resident()
del blocks
print(grown - before, resident() - before)
"""


def test_what_was_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    grown, kept = (float(number) for number in done.stdout.split())
    assert grown > 50
    assert kept < 8
