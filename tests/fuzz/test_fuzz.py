"""A short run of `make fuzz`: the service keeps what its description says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.process
def test_the_service_is_as_it_describes_itself():
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--quick", "--cases=300", "--seed=7"]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    found = re.search(r"(\d+) cases, \d+ valid pictures, seed 7: 0 ended in 5xx", run.stdout)
    assert found
    assert int(found[1]) >= 300
