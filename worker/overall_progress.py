"""How much of a job is done, over all its stages, and how many seconds the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

COSTS: Mapping[str, float] = {"hypernetwork": 0.5, "preview": 2.0, "finetune": 10.0, "likeness": 2.5}
"""The stages of personalizing in their order, and the seconds of each, as far as is known: proportions count."""
ENOUGH = 0.05
"""The share that has to be done before the seconds that are left can be told."""


class OverallProgress:
    """The progress of one run: the share of it that is done never gets smaller."""

    def __init__(self, costs: Mapping[str, float] = COSTS, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`costs` are the seconds of each stage, in their order; a run of any other stage has only that one."""
        whole = sum(costs.values())
        before = 0.0
        self._places: dict[str, tuple[float, float]] = {}
        for stage, seconds in costs.items():
            self._places[stage] = (before, seconds / whole)
            before += seconds / whole
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self.share = 0.0

    def at(self, stage: str, step: int, total: int) -> float:
        """The share that is done, 0 to 1, when this step has ended. A run may begin with a later stage."""
        start, width = self._places.get(stage, (0.0, 1.0))
        if self._first is None:
            self._first = start
        done = start + width * min(1.0, step / max(1, total))
        self.share = max(self.share, min(1.0, (done - self._first) / (1 - self._first)))
        return self.share

    def seconds_left(self) -> float | None:
        """At the pace so far; None while too little is done to tell."""
        if self.share < ENOUGH:
            return None
        return round((self._clock() - self._began) * (1 - self.share) / self.share, 1)
