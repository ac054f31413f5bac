"""The short version of `make faults`: a few jobs while everything fails, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
SHORT = "--jobs 40 --rounds 1 --pause 0.3 --length 0.2"


def test_no_job_is_lost_or_fails_while_everything_does(tmp_path: Path) -> None:
    seed = os.environ.get("SEED", "1")
    line = [sys.executable, "-m", "tests.faults.storm", "--seed", seed, *SHORT.split(), "--folder", str(tmp_path)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
