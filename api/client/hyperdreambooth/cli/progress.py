"""How far a job is, on one line."""

from __future__ import annotations

from typing import TextIO

from hyperdreambooth.schemas import JobAnswer, JobStatus


class ProgressLine:
    """Shows how far a job is: one line that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, *, width: int = 28) -> None:
        """`width` is that of the bar, in characters."""
        self._out = out
        self._width = width
        self._shown: tuple[str, int] | None = None

    def __call__(self, job: JobAnswer) -> None:
        """The job is as far as it says."""
        if job.status is JobStatus.QUEUED and job.position:
            self._show(f"{'waiting':<14} {job.position} before it", ("waiting", job.position))
        if job.stage and job.step is not None and job.total:
            self.at(job.stage, job.step, job.total)

    def at(self, stage: str, step: int, total: int) -> None:
        """So many steps of a stage are done."""
        bar = ""
        if self._out.isatty():
            filled = self._width * step // total
            bar = f"[{'#' * filled}{'.' * (self._width - filled)}] "
        self._show(f"{stage:<14} {bar}{step} of {total}", (stage, 10 * step // total))

    def end(self, line: str = "") -> None:
        """What came of it."""
        if self._out.isatty() and self._shown:
            self._out.write("\n")
        if line:
            self._out.write(f"  {line}\n")
        self._out.flush()

    def _show(self, text: str, now: tuple[str, int]) -> None:
        if self._out.isatty():
            self._out.write(f"\r  {text:<60}")
        elif self._shown != now:
            self._out.write(f"  {text}\n")
        self._shown = now
        self._out.flush()
