"""The spans of a run: for each of its jobs how long it waited, and how long it ran, with its stages and their steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core import tracing
from core.jobs.claims import Assignment

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class RunSpans:
    """Of one run. Jobs that share a batch have a span each, in the trace of the request that each came with."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        self._jobs: dict[str, Span | None] = {}
        self._stages: list[Span | None] = []
        self._stage = ""
        self._parents: dict[str, str] = {}
        jobs = len(assignments)
        for each in assignments:
            job, parent = each.job, each.traceparent
            facts: tracing.Facts = {"job.id": job.id, "job.attempt": each.claim.attempt, "batch.jobs": jobs}
            waited = tracing.tracer.begin(f"{job.kind} queued", parent, facts, at=job.created_at, kind="CONSUMER")
            tracing.end(waited, at=time.time())
            span = tracing.tracer.begin(f"{job.kind} attempt", parent, facts)
            self._jobs[each.claim.ref] = span
            self._parents[each.claim.ref] = tracing.traceparent_of(span, parent)

    def step(self, stage: str, step: int, total: int) -> None:
        """A step has begun or ended: the first one of a stage ends the stage before."""
        if stage != self._stage:
            self._end_stage()
            self._stage = stage
            begin = tracing.tracer.begin
            self._stages = [begin(stage, self._parents[ref], {"steps": total}) for ref in self._jobs]
        for span in self._stages:
            if span:
                span.add_event("step", {"step": step, "total": total})

    def end(self, ref: str, *, error: str = "") -> None:
        """The job is over for this run; `error` is the code of what it ended with."""
        tracing.end(self._jobs.pop(ref, None), error=error)

    def end_all(self) -> None:
        """The run is over."""
        self._end_stage()
        for ref in list(self._jobs):
            self.end(ref)

    def _end_stage(self) -> None:
        for span in self._stages:
            tracing.end(span)
        self._stages = []
