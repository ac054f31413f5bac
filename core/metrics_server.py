"""The metrics of a process that serves no other requests, for Prometheus: `GET /metrics` on a port of its own."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, start_http_server

from core.errors import SettingsError
from core.settings import Settings


def serve_metrics(settings: Settings, registry: CollectorRegistry) -> None:
    """Answer on the port of the settings, if there is one, in a thread of this process and in no fork of it.

    Raises SettingsError when the port is taken.
    """
    if not settings.metrics_port:
        return
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        place = f"{settings.metrics_host}:{settings.metrics_port}"
        raise SettingsError(f"metrics cannot be served on {place}: {error.strerror}", field="metrics_port") from None
    os.register_at_fork(after_in_child=server.socket.close)
