from __future__ import annotations

import io
from typing import Any

from hyperdreambooth.cli.progress import ProgressLine
from hyperdreambooth.schemas import JobAnswer
from tests.api.conftest import job_document


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def job(**changes: Any) -> JobAnswer:
    return JobAnswer.model_validate(job_document(status="running", stage=None) | changes)


def run(out: io.StringIO) -> str:
    progress = ProgressLine(out)
    progress(job(status="queued", position=2))
    progress(job(status="queued", position=0))
    progress(job())
    for step in range(41):
        progress(job(stage="finetune", step=step, total=40, progress=step / 40, seconds_left=40.0 - step))
    progress.end("done")
    return out.getvalue()


def test_it_is_one_line_on_a_terminal():
    output = run(Terminal())
    assert output.count("\n") == 2
    assert "waiting        2 before it" in output
    assert f"[{'#' * 28}] 100 %, 0 s left" in output


def test_it_is_a_line_now_and_then_elsewhere():
    lines = run(io.StringIO()).splitlines()
    assert len(lines) == 13
    assert lines[0] == "  waiting        2 before it"
    assert lines[-2:] == ["  finetune       100 %, 0 s left", "  done"]


def test_nothing_is_said_of_a_job_that_has_nothing_to_tell():
    out = Terminal()
    progress = ProgressLine(out)
    progress(job())
    progress.end()
    assert out.getvalue() == ""
