"""How many cores a process may use: fewer than the machine has, in a container or under `taskset`."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores(cgroups: Path = _CGROUPS) -> int:
    """The cores this process may run on, or so many as the quota of its control group (v2 or v1) is worth."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(cgroups)
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))


def _quota(cgroups: Path) -> float | None:
    """Cores by the quota; None when there is none."""
    second, first = cgroups / "cpu.max", cgroups / "cpu" / "cpu.cfs_quota_us"
    try:
        if second.is_file():
            most, period = second.read_text().split()
        else:
            most, period = first.read_text(), first.with_name("cpu.cfs_period_us").read_text()
        return float(most) / float(period) if float(most) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no control groups, or "max"
        return None
