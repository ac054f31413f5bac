"""Measuring side by side: what is compared takes turns in one run, so that the machine's moods meet all of it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from worker.cores import allowed_cores

Clock = Callable[[], float]


@dataclass(frozen=True)
class Line:
    """One figure: the median of `rounds` and its quartiles. `target` is an upper bound, or a lower one if `more`."""

    what: str
    unit: str
    median: float
    low: float
    high: float
    rounds: int
    target: float | None = None
    more: bool = False


def line(what: str, unit: str, values: list[float], *, target: float | None = None, more: bool = False) -> Line:
    """The figure of these values, rounded to four digits."""
    ordered = sorted(values)
    low, high = (ordered[0], ordered[-1]) if len(ordered) < 4 else statistics.quantiles(ordered, n=4)[::2]
    median, least, most = (float(f"{number:.4g}") for number in (statistics.median(ordered), low, high))
    return Line(what, unit, median, least, most, len(values), target, more)


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    end: Clock | None = None,
) -> dict[str, list[float]]:
    """Seconds of each case in each round, after one round that is not counted.

    `end` is read when a case is over, where that differs from `clock`: it waits for a device.
    """
    stop = end or clock
    for case in cases.values():
        case()
    stop()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        names = list(cases) if number % 2 == 0 else list(cases)[::-1]
        for name in names:
            began = clock()
            cases[name]()
            taken[name].append(stop() - began)
    return taken


def ratios(taken: Mapping[str, list[float]], one: str, other: str) -> list[float]:
    """One over the other, round by round."""
    return [a / b for a, b in zip(taken[one], taken[other], strict=True)]


def machine() -> dict[str, Any]:
    """What was measured on, and with which versions."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": allowed_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in ("torch", "diffusers", "transformers", "peft"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def as_json(lines: list[Line], **more: Any) -> dict[str, Any]:
    """Everything, for a file."""
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "lines": [asdict(each) for each in lines], **more}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [row.partition(":")[2].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
    return names[0] if names else platform.processor()
