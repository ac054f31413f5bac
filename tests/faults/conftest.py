from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.faults.process import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """`time.time`, which can be put forward."""
    clock = Clock(time.time)
    monkeypatch.setattr(time, "time", clock)
    return clock


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at how many points there was a fault, and at how many tests something was wrong then."""
    ended = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    points = Counter({each.nodeid: value for each in ended for name, value in each.user_properties if name == "points"})
    if points:
        terminalreporter.write_line(f"{points.total()} crash points, in {len(points)} pairs of operation and fault")
