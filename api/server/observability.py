"""What every request leaves behind: its id, in the answer and in the logs, and its part in the metrics for Prometheus.

No label names a tenant or a subject.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import tracing
from core.log import log_context

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self, *collectors: Collector) -> None:
        """`collectors` read what else there is to tell."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        for collector in collectors:
            self._registry.register(collector)
        self._requests = Counter(
            "hdb_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self._latencies = Histogram(
            "hdb_request_seconds",
            "Seconds until the answer was sent.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._queued = Gauge("hdb_jobs_queued", "Queued jobs.", ["kind"], registry=self._registry)
        self._running = Gauge("hdb_jobs_running", "Running jobs.", registry=self._registry)
        self._overdue = Gauge(
            "hdb_erasures_overdue", "What has failed to be erased for five minutes.", registry=self._registry
        )
        self._redis = Gauge("hdb_redis_up", "Whether Redis answers.", registry=self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the route's template, never a path."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._latencies.labels(method, route).observe(seconds)

    def text(self, lengths: Mapping[str, int] | None, overdue: int | None) -> bytes:
        """Metrics in Prometheus' text format. `lengths`: as `JobService.queue_lengths` returns; None without Redis.

        `overdue`: how many erasures are; None without Redis.
        """
        self._overdue.set(float("nan") if overdue is None else overdue)
        self._redis.set(lengths is not None)
        if lengths is None:  # their lengths are unknown
            self._queued.clear()
            self._running.set(float("nan"))
        else:
            for kind in lengths.keys() - {"running"}:
                self._queued.labels(kind).set(lengths[kind])
            self._running.set(lengths["running"])
        return generate_latest(self._registry)


class Observe:
    """Counts and times every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            metrics: Metrics = scope["app"].state.metrics
            metrics.observe(scope["method"], _route(scope), status, time.perf_counter() - began)


class RequestId:
    """Takes `X-Request-Id` from the caller when it is harmless, makes one otherwise, and repeats it in the answer.

    What is done inside belongs to the trace of the caller's `traceparent`, or to a new one. Each request is a line of
    the log, those of probes only when they fail.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        began, status = time.perf_counter(), 500
        parent = tracing.checked(Headers(scope=scope).get("traceparent", ""))
        method = scope["method"] if scope["method"] in _METHODS else "other"
        span = None if scope["path"] in PROBES else tracing.tracer.begin(f"HTTP {method}", parent, kind="SERVER")
        traceparent = tracing.traceparent_of(span, parent or tracing.new())

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with (
            log_context(request_id=request_id, trace_id=tracing.trace_id(traceparent)),
            tracing.traced(traceparent),
        ):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                facts = {"method": method, "route": _route(scope), "status": status}
                level = logging.DEBUG if scope["path"] in PROBES and status < 500 else logging.INFO
                _log.log(level, "request.answered", extra={**facts, "seconds": round(time.perf_counter() - began, 4)})
                code = str(status) if status >= 500 else ""
                tracing.end(span, {"http.route": _route(scope), "http.response.status_code": status}, error=code)


def _route(scope: Scope) -> str:
    """The route's template. It is known only afterwards, and only where one was found: made-up paths are no labels."""
    return getattr(scope.get("route"), "path", "none")
