"""The documents stay short, and what is written from data stays current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.lab.evaluation import results
from deploy.local import ROOT

DOCS = ROOT / "docs"
_WRITTEN = ("api", "settings", "accepted", "runbook", "performance")
GENERATED = frozenset(DOCS / f"{name}.md" for name in _WRITTEN)
README_WORDS, CELL_CHARACTERS = 700, 120
DOCS_WORDS, DECISION_WORDS = 12_000, 220
RESULTS_LINES = 190
"""About three screens."""


def words(file: Path) -> int:
    """As `wc -w` counts them: the bars of tables count as well."""
    return len(file.read_text().split())


def test_the_readme_is_short():
    assert words(ROOT / "README.md") <= README_WORDS


def test_the_cells_of_the_readme_are_short():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    assert [cell for cell in cells if len(cell) > CELL_CHARACTERS] == []


def test_the_documents_are_short_as_a_whole():
    pages = [page for page in DOCS.rglob("*.md") if page not in GENERATED]
    assert sum(words(page) for page in pages) <= DOCS_WORDS


def test_the_results_are_three_screens():
    assert len(results.PAGE.read_text().splitlines()) <= RESULTS_LINES


def test_the_results_are_those_of_their_files():
    text = results.PAGE.read_text()
    assert results.filled(text, DOCS / "results") == text, "docs/results.md is out of date: make docs"
    for file in (DOCS / "results").glob("*.json"):
        assert f"<!-- table {file.stem} -->" in text, f"no table shows {file.name}"


@pytest.mark.parametrize("record", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda record: record.stem)
def test_a_decision_is_half_a_page(record):
    text = record.read_text()
    assert words(record) <= DECISION_WORDS
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]
    number, title = re.match(r"# (\d+)\. (.+)\n", text).groups()
    assert record.name.startswith(f"{int(number):04d}-")
    assert f"{number}. [{title}]({record.name})" in (DOCS / "decisions" / "README.md").read_text()
