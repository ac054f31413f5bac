"""The trace of a request goes on in its job: ids without OpenTelemetry, spans with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from core import tracing
from core.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra `otel`")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing.tracer.start("test", {}, exporter=exporter)
    yield exporter
    tracing.tracer.stop()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        GIVEN.upper(),
        GIVEN[:-1],
        f"{GIVEN}\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        GIVEN.replace("00-", "ff-"),
    ],
)
def test_what_is_no_traceparent_is_not_taken(given: str) -> None:
    assert tracing.checked(given) == ""
    assert tracing.checked(GIVEN) == GIVEN


def test_new_traces_have_ids_of_their_own() -> None:
    first, second = tracing.new(), tracing.new()
    assert tracing.checked(first) == first
    assert len(tracing.trace_id(first)) == 32
    assert tracing.trace_id(first) != tracing.trace_id(second)


def test_without_an_endpoint_there_are_no_spans() -> None:
    tracing.tracer.start("test", {})
    span = tracing.tracer.begin("a", GIVEN)
    assert span is None
    assert tracing.traceparent_of(span, GIVEN) == GIVEN
    tracing.end(span, error="x")


def test_an_endpoint_without_the_packages_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.tracing.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"hyperdreambooth\[otel\]"):
        tracing.tracer.start("test", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert tracing.tracer.begin("a", GIVEN) is None


def test_a_span_is_below_its_parent(spans: InMemorySpanExporter) -> None:
    above = tracing.tracer.begin("above", GIVEN, {"number": 3}, at=1.5, kind="SERVER")
    below = tracing.tracer.begin("below", tracing.traceparent_of(above, ""))
    tracing.end(below, error="internal-fault")
    tracing.end(above, at=2.5)
    first, second = spans.get_finished_spans()
    assert first.parent is not None
    assert second.parent is not None
    assert f"{second.parent.span_id:016x}" in GIVEN
    assert (first.parent.span_id, first.name) == (second.context.span_id, "below")
    assert {f"{each.context.trace_id:032x}" for each in (first, second)} == {tracing.trace_id(GIVEN)}
    assert (first.status.description, second.attributes) == ("internal-fault", {"number": 3})
    assert (second.start_time, second.end_time) == (1_500_000_000, 2_500_000_000)
