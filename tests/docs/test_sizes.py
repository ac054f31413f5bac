"""Files and functions stay short; of a function its body counts, without the docstring.

`python -m pytest tests/docs/test_sizes.py -s` prints the figures."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for part in ("api", "core", "worker") for path in sorted((ROOT / part).rglob("*.py"))]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of_files() -> dict[str, int]:
    """Lines of each file that has any, by its path."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    return {name: count for name, count in lines.items() if count}


def lines_of_functions() -> dict[str, int]:
    """Lines of each function's body, without its docstring, by its place."""
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": _body(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, FUNCTIONS)
    }


def _body(function: FUNCTIONS) -> int:
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


@pytest.mark.parametrize(
    ("lines", "most"),
    [(lines_of_files, (120, 250, 400)), (lines_of_functions, (7, 18, 50))],
    ids=["files", "functions"],
)
def test_median_tenth_and_longest(lines, most) -> None:
    sizes = lines()
    found = (median(sizes.values()), quantiles(sizes.values(), n=10)[-1], max(sizes.values()))
    longest = sorted(sizes, key=lambda name: -sizes[name])[:5]
    print(f"\n{lines.__name__}: median {found[0]:.0f}, nine of ten at most {found[1]:.0f}, longest {found[2]}")
    print("\n".join(f"  {sizes[name]:4} {name}" for name in longest))
    assert all(size <= limit for size, limit in zip(found, most, strict=True)), longest
