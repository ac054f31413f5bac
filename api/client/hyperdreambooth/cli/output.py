"""What commands print: lines for people, JSON for programs (a document a line). All else goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TextIO, TypeVar

from pydantic import BaseModel

from hyperdreambooth.client import Problem

ModelT = TypeVar("ModelT", bound=BaseModel)


class Output:
    """Where a command's results go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, model: BaseModel, *lines: str, flush: bool = False) -> None:
        """Print an answer: as these lines, or as JSON."""
        for line in [model.model_dump_json()] if self.as_json else lines:
            sys.stdout.write(f"{line}\n")
        if flush:
            sys.stdout.flush()

    def show_all(self, models: Iterable[ModelT], columns: Mapping[str, Callable[[ModelT], str]]) -> None:
        """Print answers as a table; `columns` has the function of each column's cell, by its head."""
        if self.as_json:
            for model in models:
                sys.stdout.write(f"{model.model_dump_json()}\n")
            return
        rows = [tuple(cell(model) for cell in columns.values()) for model in models]
        write_table(sys.stdout, [tuple(columns), *rows])


def write_table(out: TextIO, rows: Sequence[Sequence[str]]) -> None:
    """Print rows with columns as wide as their widest cell."""
    out.writelines(f"{line}\n" for line in table(rows))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, with columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def when(time: datetime) -> str:
    """A time as tables have it."""
    return time.strftime("%Y-%m-%d %H:%M")


def note(line: str) -> None:
    """Print something to know that is no result."""
    sys.stderr.write(f"{line}\n")


def complain(title: str, detail: str = "") -> None:
    """Print what went wrong, and what to do about it."""
    sys.stderr.write(f"hdb: {title}\n" + (f"{detail}\n" if detail and detail != title else ""))


def complain_of(problem: Problem) -> None:
    """Print why the service refused; the request's id is for those who run it."""
    complain(problem.title, problem.detail)
    if problem.status >= 500 and problem.request_id:
        sys.stderr.write(f"It is {problem.request_id} in the service's logs.\n")
