"""What Prometheus gets to know of the service as a whole, read from Redis and the store when it asks.

Every API process tells the same numbers: take `max`, not `sum`, over them. No label names a tenant or a subject.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from core.errors import HyperDreamBoothError
from core.jobs.figures import Figures, read_figures
from core.queue.connection import redis_errors
from core.services import Services
from core.storage import keys

STORE_SECONDS = 3.0
"""How long the store may take to answer: less than Prometheus waits."""
_COUNTS = {
    "ended": ("hdb_jobs_ended", "Jobs that ended, by state and code of the error.", ("kind", "state", "code")),
    "started": ("hdb_job_attempts", "Attempts at jobs.", ("kind",)),
    "returned": ("hdb_job_attempts_failed", "Attempts that failed and are made again.", ("kind", "code")),
    "set_back": ("hdb_jobs_set_back", "Jobs that were given back for an outage or memory, by code.", ("kind", "code")),
    "dropped": ("hdb_redis_records_dropped", "Records in Redis that could not be read.", ("what",)),
    "expired": ("hdb_leases_expired", "Jobs whose worker was not heard of any more.", ("kind",)),
}


class ServiceCollector(Collector):
    """Reads the service's numbers at each request of Prometheus; those that cannot be had are left out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._probes = ThreadPoolExecutor(1, thread_name_prefix="store-probe")
        self._probe: Future[None] | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering this must not ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        is_up = self._store_answers()
        yield _gauge("hdb_store_up", "Whether the store answers, and takes writes.", float(is_up))
        if is_up:
            with contextlib.suppress(HyperDreamBoothError):
                aside = sum(1 for _ in self._services.store.list(keys.UNREADABLE))
                yield _gauge("hdb_unreadable_records", "Records in the store that were set aside.", aside)
        for read in (self._jobs, self._redis, self._workers, self._webhooks, self._maintenance):
            try:
                yield from list(read())
            except HyperDreamBoothError:  # hdb_redis_up says so
                return

    def _store_answers(self) -> bool:
        """Whether it does in time; a probe that hangs is not joined by a second one."""
        if self._probe is None or self._probe.done():
            self._probe = self._probes.submit(self._services.store.ping)
        try:
            self._probe.result(STORE_SECONDS)
        except (HyperDreamBoothError, TooLate):
            return False
        return True

    def _jobs(self) -> Iterator[Metric]:
        figures = read_figures(self._services.redis)
        yield _by("hdb_jobs_oldest_seconds", "How long the first job of a queue has waited.", "kind", figures.oldest)
        yield from _counters(figures)

    def _redis(self) -> Iterator[Metric]:
        with redis_errors():
            memory = self._services.redis.info("memory")
        yield _gauge("hdb_redis_memory_bytes", "Memory that Redis uses.", float(memory["used_memory"]))
        limit = float(memory["maxmemory"])
        if limit:
            yield _gauge("hdb_redis_memory_limit_bytes", "Memory that Redis may use.", limit)

    def _workers(self) -> Iterator[Metric]:
        alive, loaded = self._services.workers.count()
        yield _gauge("hdb_workers", "Workers that were heard of lately.", alive)
        yield _gauge("hdb_workers_loaded", "Workers that have loaded their model.", loaded)
        quarantined = self._services.workers.quarantined()
        yield _gauge("hdb_workers_quarantined", "Workers that failed several times in a row.", quarantined)

    def _webhooks(self) -> Iterator[Metric]:
        backlog = self._services.webhooks.backlog()
        yield _gauge("hdb_webhook_messages_waiting", "Messages that wait to be sent.", backlog.messages)
        yield _gauge("hdb_webhook_overdue_seconds", "How long the first message has been due.", backlog.overdue)

    def _maintenance(self) -> Iterator[Metric]:
        text = "When a task of the maintenance was last done, in seconds since 1970."
        yield _by("hdb_maintenance_done_timestamp_seconds", text, "task", self._services.locks.done_at())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(figures: Figures) -> Iterator[Metric]:
    for what, (name, text, labels) in _COUNTS.items():
        family = CounterMetricFamily(name, text, labels=labels)
        for (key, *values), count in figures.counts.items():
            if key == what and len(values) == len(labels):
                family.add_metric(values, count)
        yield family
