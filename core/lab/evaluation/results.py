"""The tables of docs/results.md, written from the figures in docs/results/*.json.

``python -m core.lab.evaluation report`` fills every block of the page that begins with ``<!-- table NAME -->`` and ends
with ``<!-- end -->`` from ``results/NAME.json`` beside it; with ``--check`` it only says whether the page is current.
The ``rows`` of a file have the format of an evaluation's ``tables.json``, so that they can be taken from there.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import field
from math import acos
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from core.lab.evaluation.report import Mean

PAGE = Path(__file__).parents[3] / "docs" / "results.md"

_BLOCK = re.compile(r"<!-- table (?P<name>[a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Result:
    """One table: how it was measured, its columns (key to heading, in their order) and its rows.

    ``digits`` are the decimal places of a column, 2 unless given. ``real_pairs`` is the mean cosine of two real photos
    of one person; with it a column ``copy_paste`` is computed from ``photo`` and ``others``.
    """

    setup: str
    columns: dict[str, str]
    rows: dict[str, dict[str, Mean]]
    command: str = ""
    digits: dict[str, int] = field(default_factory=dict)
    real_pairs: float | None = None


def copy_paste(photo: float, others: float, real_pairs: float) -> float:
    """MultiID-Bench's measure, from mean cosines: 1 for the photo itself, 0 for as near to other photos as to it.

    ``photo`` is the likeness with the photo that was given, ``others`` with other photos of that person.
    """
    return (acos(others) - acos(photo)) / acos(real_pairs)


def load_result(file: Path) -> Result:
    """Read one file of figures; pydantic's ValidationError names a field that is wrong."""
    return TypeAdapter(Result).validate_json(file.read_bytes())


def markdown(result: Result) -> str:
    """The table, with the setup above it and the command below it."""
    lines = [result.setup, "", f"| | {' | '.join(result.columns.values())} |", "|---" * (len(result.columns) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(_cells(result, row))} |" for title, row in result.rows.items()]
    lines += ["", f"`{result.command}`"] if result.command else []
    return "\n".join(lines)


def filled(page: str, folder: Path) -> str:
    """The page with every table written anew from ``folder``."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        table = markdown(load_result(folder / f"{name}.json"))
        return f"<!-- table {name} -->\n{table}\n<!-- end -->"

    return _BLOCK.sub(block, page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, or check it: exit status 1 when it is out of date."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation report", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page is out of date")
    options = parser.parse_args(arguments)
    page: Path = options.page
    before = page.read_text()
    after = filled(before, page.with_suffix(""))
    if not options.check:
        page.write_text(after)
    elif after != before:
        parser.exit(1, f"{page} is out of date: python -m core.lab.evaluation report\n")


def _cells(result: Result, row: dict[str, Mean]) -> list[str]:
    values = dict(row)
    if result.real_pairs is not None and {"photo", "others"} <= row.keys():
        values["copy_paste"] = (copy_paste(row["photo"][0], row["others"][0], result.real_pairs), None)
    return [_cell(values.get(key), result.digits.get(key, 2)) for key in result.columns]


def _cell(value: Mean | None, digits: int) -> str:
    if value is None:
        return ""
    mean, half = value
    return f"{mean:z,.{digits}f}" if half is None else f"{mean:z,.{digits}f} ± {half:,.{digits}f}"
