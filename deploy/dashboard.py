"""`python -m deploy.dashboard deploy/monitoring/dashboard.json`: the dashboard for Grafana, from the list below.

Import it there with a Prometheus as its data source. Numbers of the service as a whole are the same in every API
process, so they are the `max` over them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """A graph: its title, the unit of its axis, and the query and legend of each line."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


_ENDED = "max by (kind, state, code) (rate(hdb_jobs_ended_total[5m]))"
PANELS = {
    "Jobs": (
        Panel(
            "Waiting and running",
            "short",
            (("max by (kind) (hdb_jobs_queued)", "{{kind}}"), ("max(hdb_jobs_running)", "running")),
        ),
        Panel("Oldest waiting", "s", (("max by (kind) (hdb_jobs_oldest_seconds)", "{{kind}}"),)),
        Panel("Ended a second, by outcome", "short", ((f"sum by (state, code) ({_ENDED})", "{{state}} {{code}}"),)),
        Panel(
            "Attempts a second",
            "short",
            (
                ("max by (kind) (rate(hdb_job_attempts_total[5m]))", "{{kind}}"),
                ("sum by (code) (max by (kind, code) (rate(hdb_job_attempts_failed_total[5m])))", "failed {{code}}"),
                ("sum(max by (kind) (rate(hdb_leases_expired_total[5m])))", "lease expired"),
            ),
        ),
    ),
    "Workers": (
        Panel("Workers", "short", (("max(hdb_workers)", "alive"), ("max(hdb_workers_loaded)", "loaded"))),
        Panel(
            "Seconds of a stage, median",
            "s",
            (
                (
                    "histogram_quantile(0.5, sum by (le, kind, stage) (rate(hdb_stage_seconds_bucket[15m])))",
                    "{{kind}} {{stage}}",
                ),
            ),
        ),
        Panel(
            "Pictures in one pass, of those that may be",
            "percentunit",
            (
                (
                    "sum(rate(hdb_batch_occupancy_ratio_sum[15m])) / sum(rate(hdb_batch_occupancy_ratio_count[15m]))",
                    "mean",
                ),
            ),
        ),
        Panel("Device memory", "bytes", (("hdb_device_memory_bytes", "{{instance}} {{use}}"),)),
    ),
    "Requests": (
        Panel("Requests a second", "short", (("sum by (status) (rate(hdb_requests_total[5m]))", "{{status}}"),)),
        Panel(
            "Seconds of a request, 99 of 100",
            "s",
            (("histogram_quantile(0.99, sum by (le, method) (rate(hdb_request_seconds_bucket[5m])))", "{{method}}"),),
        ),
        Panel("Memory of processes", "bytes", (("process_resident_memory_bytes", "{{job}} {{instance}}"),)),
    ),
    "What it stands on": (
        Panel("Redis and the store answer", "short", (("max(hdb_redis_up)", "Redis"), ("max(hdb_store_up)", "store"))),
        Panel(
            "Memory of Redis",
            "bytes",
            (("max(hdb_redis_memory_bytes)", "used"), ("max(hdb_redis_memory_limit_bytes)", "limit")),
        ),
        Panel(
            "Webhooks",
            "short",
            (
                ("max(hdb_webhook_messages_waiting)", "waiting"),
                ("max(hdb_webhook_overdue_seconds)", "seconds overdue"),
                ("sum by (status) (rate(hdb_webhook_attempts_total[5m]))", "attempts a second {{status}}"),
            ),
        ),
        Panel(
            "Seconds since the maintenance was done",
            "s",
            (("time() - max by (task) (hdb_maintenance_done_timestamp_seconds)", "{{task}}"),),
        ),
        Panel("Erasures overdue", "short", (("max(hdb_erasures_overdue)", "overdue"),)),
    ),
}
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, graphs in PANELS.items():
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "gridPos": place})
        for index, graph in enumerate(graphs):
            place = {"x": index % 3 * 8, "y": y + 1 + index // 3 * 8, "w": 8, "h": 8}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_graph(graph)})
        y += 1 + -(-len(graphs) // 3) * 8
    return {
        "uid": "hyperdreambooth",
        "title": "HyperDreamBooth",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _graph(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(dashboard(), indent=1) + "\n")
