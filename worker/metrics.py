"""What a worker tells Prometheus. The child measures, and the parent, which outlives it, answers.

They share files, as prometheus_client does it for several processes: one set for the parent and one for whichever child
there is, which goes on counting where the one before it ended. `python -m worker` calls `share` before anything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def share(folder: Path) -> None:
    """Keep the numbers in files of this folder from now on, those of this process and those of its child."""
    parent = os.getpid()
    os.environ[FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: "parent" if os.getpid() == parent else "child")
    _make()


class _Measures:
    """The metrics; made anew by `share`, since a metric keeps its numbers where they were kept when it was made."""

    stages: Histogram
    occupancy: Histogram
    memory: Gauge


def _make() -> None:
    registry = CollectorRegistry()
    _Measures.stages = Histogram(
        "hdb_stage_seconds",
        "Seconds of the stages of jobs that succeeded.",
        ["kind", "stage"],
        buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
        registry=registry,
    )
    _Measures.occupancy = Histogram(
        "hdb_batch_occupancy_ratio",
        "Pictures that were made in one pass, of those that may be (HDB_BATCH_ROWS).",
        buckets=(0.0625, 0.125, 0.25, 0.5, 0.75, 1.0),
        registry=registry,
    )
    _Measures.memory = Gauge(
        "hdb_device_memory_bytes",
        "Memory of the device: in use, kept by the allocator, and all there is.",
        ["use"],
        registry=registry,
        multiprocess_mode="mostrecent",
    )


_make()


def observe_stages(kind: str, seconds: Mapping[str, float]) -> None:
    """A job of this kind has succeeded, with so many seconds in each stage."""
    for stage, value in seconds.items():
        _Measures.stages.labels(kind, stage).observe(value)


def observe_batch(rows: int, most: int) -> None:
    """So many pictures were made in one pass."""
    _Measures.occupancy.observe(rows / most)


def observe_memory(use: Mapping[str, int]) -> None:
    """The device's memory, in bytes, by use."""
    for name, value in use.items():
        _Measures.memory.labels(name).set(value)


def registry_of_all() -> CollectorRegistry:
    """The numbers of parent and child, where `share` was called, and what the parent's process takes."""
    registry = CollectorRegistry()
    if FOLDER in os.environ:
        MultiProcessCollector(registry)
    ProcessCollector(registry=registry)
    return registry
