"""What a run will cost, from a few steps of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from core.hyperdreambooth.model.bundle import Bundle
from core.lab.training.loop import Losses, TrainingLoop
from core.lab.training.preoptimize import Load, optimize_group
from core.lab.training.recipe import Preoptimize

MEASURED = 3
"""Steps that are timed, after one that warms up."""


@dataclass(frozen=True)
class Estimate:
    """Seconds a step and a group of pre-optimisation, and how many of them are left for ``processes`` to do.

    ``memory`` is the most that one device held, in bytes; None where nobody counts.
    """

    steps: int
    step_seconds: float
    groups: int
    group_seconds: float
    processes: int
    device: str
    memory: int | None = None

    @property
    def hours(self) -> float:
        """Hours from now to the end."""
        rounds = -(-self.groups // self.processes)
        return (self.steps * self.step_seconds + rounds * self.group_seconds) / 3600

    def __str__(self) -> str:
        """The lines that are shown before it starts."""
        unit = "GPU-hours" if self.device == "cuda" else f"{self.device.upper()}-process-hours"
        whole = self.hours * self.processes
        lines = [
            f"hypernetwork: {self.step_seconds:.3g} s a step, {self.steps} steps left",
            f"processes: {self.processes}; about {self.hours:.3g} hours, {whole:.3g} {unit} in all",
        ]
        if self.groups:
            lines.insert(0, f"pre-optimisation: {self.group_seconds:.3g} s a group, {self.groups} groups left")
        if self.memory is not None:
            lines.append(f"memory: {self.memory / 2**30:.1f} GiB of each device at most so far")
        return "\n".join(lines)


def measure_steps(loop: TrainingLoop, losses: Callable[[torch.Generator], Losses]) -> float:
    """Seconds a step, by a few that are taken back."""
    loop.rehearse(losses)
    begun = time.perf_counter()
    for _ in range(MEASURED):
        loop.rehearse(losses)
    return (time.perf_counter() - begun) / MEASURED


def measure_group(bundle: Bundle, load: Load, config: Preoptimize, group: np.ndarray) -> float:
    """Seconds for one group of pre-optimisation, by its first steps."""
    times: list[float] = []
    few = replace(config, steps=min(config.steps, MEASURED + 1))
    optimize_group(bundle, load, few, group, 0, on_step=lambda *_: times.append(time.perf_counter()))
    return config.steps * (times[-1] - times[0]) / max(1, len(times) - 1)
