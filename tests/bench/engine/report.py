"""docs/performance.md, from what was measured: `python -m tests.bench.engine.report` writes it anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.engine.timing import Line

FIGURES = Path(__file__).parents[3] / "docs" / "performance.json"
_INTRODUCTION = (
    "`make bench` measures this and writes it, on a machine that does nothing else. Medians and quartiles of one run; "
    "ratios are of cases that took turns, of the embedded model where nothing else is said."
)
_NOT_RUN = "Not run yet on a machine at rest."
_NOT_RUN_ON_GPU = (
    "Not run yet: `make bench-gpu` needs a GPU, and besides the repository torch, diffusers, transformers, "
    "pydantic and jaxtyping."
)
GPU_FIGURES = FIGURES.with_name("performance-gpu.json")


def told(each: Line) -> str:
    """A figure as a line of text."""
    return f"{each.what}: {_median(each)} ({_spread(each)}){_aim(each)}"


def page(figures: Mapping[str, Any] | None, gpu: Mapping[str, Any] | None = None) -> str:
    """The page: what `make bench` and `make bench-gpu` have measured, each if it was run."""
    parts = ["# Performance", _INTRODUCTION, *(_on_processors(figures) if figures else [_NOT_RUN]), "## On a GPU"]
    parts += [_machine(gpu), _table([Line(**each) for each in gpu["lines"]])] if gpu else [_NOT_RUN_ON_GPU]
    return "\n\n".join(parts) + "\n"


def _on_processors(figures: Mapping[str, Any]) -> list[str]:
    lines = [Line(**each) for each in figures["lines"]]
    parts = [_machine(figures), _table(lines), *_gap(lines)]
    if figures["operators"]:
        parts += ["## What the time goes into", *[_operators(*each) for each in figures["operators"].items()]]
    return parts + (["## Requests that wait", _plot(figures["waiting"])] if figures["waiting"] else [])


def _machine(figures: Mapping[str, Any]) -> str:
    of = figures["machine"]
    chip = of.get("gpu") or f"{of['processor']}, {of['cores']} cores, {of['threads']} threads"
    versions = ", ".join(f"{name} {of[name]}" for name in ("torch", "diffusers", "peft") if of.get(name))
    return f"{chip}; {versions}; {figures['date']}; {figures['seconds']} s in all."


def _table(lines: list[Line]) -> str:
    rows = [f"| {each.what} | {_median(each)} | {_spread(each)} |{_aim(each)} |" for each in lines]
    return "\n".join(["| | median | quartiles | target |", "|---|---|---|---|", *rows])


def _gap(lines: list[Line]) -> list[str]:
    """The target that is missed by most, in a sentence; nothing when all are met."""
    missed = {each.what: _missed(each) for each in lines if each.target is not None}
    worst = max(missed, key=lambda what: missed[what], default=None)
    if worst is None or missed[worst] <= 1:
        return []
    return [f"The largest gap: {worst}, {missed[worst]:.2g} times its target."]


def _missed(each: Line) -> float:
    assert each.target is not None
    return each.target / max(each.median, 1e-9) if each.more else each.median / each.target


def _operators(name: str, shares: list[tuple[str, float]]) -> str:
    return f"{name.capitalize()}: " + ", ".join(f"`{of}` {share:.0%}" for of, share in shares) + "."


def _plot(waiting: list[Mapping[str, float]]) -> str:
    """Pictures a second and mean latency, as plots that GitHub draws."""
    counts = ", ".join(f"{row['waiting']:.0f}" for row in waiting)
    plots = []
    for title, names in (
        ("pictures a second: ours, the engine alone", ("rate", "own_rate")),
        ("mean seconds", ("mean",)),
    ):
        drawn = [f"  line [{', '.join(str(row[name]) for row in waiting)}]" for name in names]
        head = ["```mermaid", "xychart-beta", f'  title "{title}"', f'  x-axis "waiting" [{counts}]']
        plots.append("\n".join([*head, *drawn, "```"]))
    return "\n\n".join(plots)


def _median(each: Line) -> str:
    return f"{each.median:,g} {'' if each.unit == 'x' else each.unit}".strip()


def _spread(each: Line) -> str:
    return "" if each.rounds == 1 else f"{each.low:g} to {each.high:g}"


def _aim(each: Line) -> str:
    return "" if each.target is None else f" {'at least' if each.more else 'at most'} {each.target:g}"


def written() -> str:
    """The page, from the files beside it."""
    cpu, gpu = (json.loads(file.read_text()) if file.exists() else None for file in (FIGURES, GPU_FIGURES))
    return page(cpu, gpu)


if __name__ == "__main__":
    FIGURES.with_suffix(".md").write_text(written())
