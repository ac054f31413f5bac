"""Measure the engine on this machine (`make bench`): python -m tests.bench.engine --output docs/performance.json

Writes what was measured, with machine and versions. `--quick` runs everything once, with small numbers. The machine
should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from core.hyperdreambooth.model.loading import load_bundle
from core.settings import EMBEDDED_BUNDLE
from tests.bench.engine import method, peers, report, timing, worker
from tests.bench.engine.timing import Line
from worker.cores import allowed_cores

Found = tuple[list[Line], dict[str, Any]]
"""Figures, and what the file has beside them."""
Part = Callable[[], Found]


def parts(rounds: int, steps: int, *, quick: bool) -> dict[str, Part]:
    """What is measured, by name, in turn."""
    embedded = cache(lambda: load_bundle(EMBEDDED_BUNDLE, device="cpu"))
    open_people = (2, 4) if quick else (10, 100, 1000)
    waiting = (1, 2) if quick else (1, 2, 4, 8, 16, 32, 64)

    def in_the_worker() -> Found:
        with worker.bench(steps=2 if quick else None) as held:
            return worker.everything(held, rounds, people=1 if quick else 3, waiting=waiting)

    return {
        "opening": lambda: (method.opening(3 * rounds), {}),
        "people": lambda: (method.different_people(embedded(), rounds, steps=steps), {}),
        "diffusers": lambda: (peers.against_diffusers(embedded(), rounds, steps=steps), {}),
        "shares": lambda: method.shares(embedded(), rounds),
        "kernels": lambda: (method.kernels(), {}),
        "residents": lambda: (method.residents(embedded(), rounds, open_people), {}),
        "worker": in_the_worker,
    }


def measure(chosen: dict[str, Part]) -> dict[str, Any]:
    """Everything that was chosen, for the file."""
    lines: list[Line] = []
    more: dict[str, Any] = {"operators": {}, "waiting": []}
    began = time.monotonic()
    for part in chosen.values():
        found, beside = part()
        more |= beside
        lines += found
        for each in found:
            print(f"{time.monotonic() - began:5.0f} s  {report.told(each)}", flush=True)
    return timing.as_json(lines, **more, seconds=round(time.monotonic() - began))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.bench.engine", description="How fast the engine is on this machine.")
    parser.add_argument("--output", type=Path, default=report.FIGURES, help="the JSON file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of pictures that are compared")
    parser.add_argument("--threads", type=int, default=allowed_cores())
    parser.add_argument("--only", action="append", choices=list(parts(1, 1, quick=True)), help="again for another part")
    parser.add_argument("--quick", action="store_true", help="everything once, with small numbers")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(asked.threads)
    rounds, steps = (1, 1) if asked.quick else (asked.rounds, asked.steps)
    every = parts(rounds, steps, quick=asked.quick)
    figures = measure({name: every[name] for name in asked.only or every})
    asked.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{asked.output} is written; python -m tests.bench.engine.report makes docs/performance.md of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
