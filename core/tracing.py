"""Traces: the `traceparent` of a request goes with its job, and with OpenTelemetry there are spans for both.

The spans need the extra `otel`, and are sent where OTEL_EXPORTER_OTLP_ENDPOINT says (all `OTEL_*` variables are
OpenTelemetry's own). Without either, ids still go through to the logs of the worker, and a span costs nothing. No span
has a prompt, a name or a key.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from core.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Facts = Mapping[str, str | int]
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_current: ContextVar[str] = ContextVar("traceparent", default="")


class Tracer:
    """Makes spans, or none: until `start` is called in a process, and wherever no endpoint is set."""

    def __init__(self) -> None:
        self._provider: Any = None

    def start(self, service: str, environ: Mapping[str, str] = os.environ, *, exporter: Any = None) -> None:
        """Send spans from now on, if the environment has an endpoint; after the fork, since a thread sends them.

        `exporter` takes them instead, in tests. Raises SettingsError when the packages are not installed.
        """
        if exporter is None and (not any(map(environ.get, ENDPOINTS)) or environ.get("OTEL_SDK_DISABLED") == "true"):
            return
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            raise SettingsError(f"{ENDPOINTS[0]} needs: pip install 'hyperdreambooth[otel]'", field=ENDPOINTS[0])
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        else:
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))

    def stop(self) -> None:
        """Send what is left, and make no more spans."""
        if self._provider:
            self._provider.shutdown()
        self._provider = None

    def begin(
        self, name: str, parent: str, facts: Facts | None = None, *, at: float | None = None, kind: str = "INTERNAL"
    ) -> Span | None:
        """A span below the traceparent `parent`, from `at` (seconds since 1970, or now); `end` it. None: no spans."""
        if self._provider is None:
            return None
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        span: Span = self._provider.get_tracer("hyperdreambooth").start_span(
            name,
            context=_context(parent),
            kind=trace.SpanKind[kind],
            start_time=_nanoseconds(at),
            attributes=facts,
        )
        return span


tracer = Tracer()
"""That of this process."""


@contextlib.contextmanager
def traced(traceparent: str) -> Iterator[None]:
    """What is accepted inside belongs to this trace."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str:
    """The traceparent of what is being done, or an empty string."""
    return _current.get()


def checked(given: str) -> str:
    """The traceparent that a caller gave, when it is one, or an empty string."""
    return given if _TRACEPARENT.fullmatch(given) else ""


def new() -> str:
    """The traceparent of a new trace that is not recorded."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def trace_id(traceparent: str) -> str:
    """The trace's id, or an empty string."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else ""


def traceparent_of(span: Span | None, otherwise: str) -> str:
    """What to hand on below a span."""
    if span is None:
        return otherwise
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def end(span: Span | None, facts: Facts | None = None, *, error: str = "", at: float | None = None) -> None:
    """End a span; `error` is a code, and makes it a failed one."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - there is a span, so it is installed

    span.set_attributes(facts or {})
    if error:
        span.set_status(StatusCode.ERROR, error)
    span.end(_nanoseconds(at))


def _nanoseconds(at: float | None) -> int | None:
    return None if at is None else int(at * 1e9)


def _context(parent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({"traceparent": parent})
