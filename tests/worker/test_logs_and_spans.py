"""What a run logs and traces names each of its jobs with the request that it came with."""

from __future__ import annotations

import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from core import tracing
from core.log import configure_logging
from core.records import GenerateRequest, Job, JobState, Subject

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness

JOBS = 4


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("DEBUG", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def asked(worker: WorkerHarness, number: int) -> Job:
    subject: Subject = worker.ready  # type: ignore[attr-defined]
    request = GenerateRequest(subject_id=subject.id, prompt="a [V] face", batch_group="one")
    with tracing.traced(f"00-{number:032x}-00f067aa0ba902b7-01"):
        return worker.subjects.generate("local", request, request_id=f"req_{number}")


@pytest.mark.parametrize("fault", ["", "raise", "cancel", "lost", "refused"])
def test_every_line_about_a_job_has_its_own_request(worker: WorkerHarness, log: io.StringIO, fault: str) -> None:
    worker.ready = worker.ready_subject()  # type: ignore[attr-defined]
    jobs = [asked(worker, number) for number in range(1, JOBS + 1)]
    if fault == "raise":
        worker.script_engine(fault="raise", fault_runs=JOBS + 1)
    if fault == "cancel":
        worker.at_step(1, lambda: worker.jobs.cancel("local", jobs[2].id))
    if fault == "lost":
        worker.at_step(1, lambda: worker.ledger.erase([jobs[1].ref]))
    if fault == "refused":
        worker.store.objects.pop(next(key for key in worker.store.objects if key.endswith(".lidb")))
    worker.handle_all()
    if fault == "":
        assert {worker.now(job).state for job in jobs} == {JobState.SUCCEEDED}
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in map(json.loads, log.getvalue().splitlines()):
        lines[line.get("job_id", "")].append(line)
        assert ("request_id" in line) <= ("job_id" in line)
    for number, job in enumerate(jobs, start=1):
        assert {line["request_id"] for line in lines[job.id]} == {f"req_{number}"}
        traces = {line["trace_id"] for line in lines[job.id] if "trace_id" in line}
        assert traces == {f"{number:032x}"}
    assert not [line for line in lines[""] if line["event"].startswith(("job.", "lease."))]


def test_jobs_of_a_batch_have_spans_in_the_traces_of_their_requests(worker: WorkerHarness) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra `otel`")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    worker.ready = worker.ready_subject()  # type: ignore[attr-defined]
    for number in range(1, JOBS + 1):
        asked(worker, number)
    exporter = InMemorySpanExporter()
    tracing.tracer.start("test", {}, exporter=exporter)
    try:
        assert worker.handle_all() == [JOBS]
    finally:
        tracing.tracer.stop()
    traces = defaultdict(list)
    for span in exporter.get_finished_spans():
        traces[span.context.trace_id].append(span)
    assert sorted(traces) == list(range(1, JOBS + 1))
    for spans in traces.values():
        by_name = {span.name: span for span in spans}
        assert set(by_name) == {"generate queued", "generate attempt", "generate"}
        stage = by_name["generate"]
        assert stage.parent.span_id == by_name["generate attempt"].context.span_id
        assert [event.attributes["step"] for event in stage.events] == [1, 2, 3]
        assert by_name["generate queued"].attributes["job.attempt"] == 1
        assert by_name["generate queued"].end_time >= by_name["generate queued"].start_time
