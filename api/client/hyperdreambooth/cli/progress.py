"""The progress of a job on one line, and waiting for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from hyperdreambooth.cli.output import note
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import JobAnswer, JobStatus


class ProgressLine:
    """The progress of a whole job: one line that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, *, width: int = 28) -> None:
        """`width` is that of the bar, in characters."""
        self._out = out
        self._width = width
        self._last: tuple[str, int] | None = None

    def __call__(self, job: JobAnswer) -> None:
        """Show the job's position in the queue, or its stage, how much of all is done, and the seconds left."""
        if job.status is JobStatus.QUEUED and job.position:
            self._show(f"{'waiting':<14} {job.position} before it", ("waiting", job.position))
        if job.stage:
            left = "" if job.seconds_left is None else f", {job.seconds_left:.0f} s left"
            self._draw(job.stage, job.progress, f"{percent(job.progress)}{left}")

    def at(self, stage: str, step: int, total: int) -> None:
        """Show that `step` of `total` are done."""
        self._draw(stage, step / total, f"{step} of {total}")

    def end(self, line: str = "") -> None:
        """End the line; print another one below it."""
        if self._out.isatty() and self._last:
            self._out.write("\n")
        if line:
            self._out.write(f"  {line}\n")
        self._out.flush()

    def _draw(self, stage: str, share: float, text: str) -> None:
        filled = int(self._width * share)
        bar = f"[{'#' * filled}{'.' * (self._width - filled)}] " if self._out.isatty() else ""
        self._show(f"{stage:<14} {bar}{text}", (stage, int(10 * share)))

    def _show(self, text: str, now: tuple[str, int]) -> None:
        if self._out.isatty():
            self._out.write(f"\r  {text:<60}")
        elif self._last != now:
            self._out.write(f"  {text}\n")
        self._last = now
        self._out.flush()


def percent(share: float) -> str:
    """A share as people read it, `42 %`, which is 100 % only at the end."""
    return f"{int(100 * share)} %"


@contextmanager
def progress_line(command: str, identifier: str) -> Iterator[ProgressLine]:
    """A line on stderr for a wait. On Ctrl-C it says how to come back (`command`), and how to cancel."""
    progress = ProgressLine(sys.stderr)
    try:
        yield progress
    except KeyboardInterrupt:
        note(f"It goes on: {command}, or hdb cancel {identifier}.")
        raise
    finally:
        progress.end()


def wait_for_job(client: Client, job_id: str) -> JobAnswer:
    """The job when it has succeeded. Raises JobFailed."""
    with progress_line(f"hdb job {job_id} --wait", job_id) as progress:
        return client.wait(job_id, on_progress=progress)
