"""Metrics for Prometheus: requests by route, and the lengths of the queues. No label names a tenant or a subject."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
        self._redis = Gauge("hdb_redis_up", "Whether Redis answers.", registry=self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the route's template, never a path."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._latencies.labels(method, route).observe(seconds)

    def text(self, lengths: Mapping[str, int] | None) -> bytes:
        """All metrics in Prometheus' text format. `lengths`: as `Jobs.queue_lengths` returns; None without Redis."""
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
            # The route is known only now, and only where one was found: made-up paths must not become labels.
            route = getattr(scope.get("route"), "path", "none")
            metrics: Metrics = scope["app"].state.metrics
            metrics.observe(scope["method"], route, status, time.perf_counter() - began)
