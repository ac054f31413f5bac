"""An erasure that keeps failing is seen: in the readiness, in the metrics and in the log."""

from __future__ import annotations

import logging
import time

import pytest

from core.errors import StoreUnavailable
from core.queue.failures import OVERDUE_SECONDS
from worker.maintenance import Maintenance


@pytest.fixture
def broken(store, monkeypatch):
    """A store that deletes nothing that is under a prefix."""

    def refuse(prefix):
        raise StoreUnavailable("the store answered MissingContentMD5")

    monkeypatch.setattr(store, "delete_prefix", refuse)
    monkeypatch.setattr("api.server.readiness.KNOWN_SECONDS", 0.0)
    return monkeypatch


def overdue(client):
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith("hdb_erasures_overdue")]
    return float(line.split()[1])


def delete_subject(client, subject_id):
    return client.delete(f"/v1/subjects/{subject_id}")


def delete_batch(client, subject_id):
    batch = client.post("/v1/batches", json={"prompts": ["a [V] face"], "subject_ids": [subject_id]}).json()
    return client.delete(f"/v1/batches/{batch['id']}")


@pytest.mark.parametrize("delete", [delete_subject, delete_batch])
def test_an_erasure_that_keeps_failing_is_an_alarm(client, services, subject_id, broken, caplog, delete):
    assert delete(client, subject_id).status_code in (202, 503)
    maintenance = Maintenance(services)

    def work():
        services.redis.delete("hdb:turn:reconcile", "hdb:turn:feed", "hdb:turn:feeding")
        maintenance.tick()

    work()
    assert (client.get("/readyz?exclude=workers").json()["checks"]["erasures"], overdue(client)) == ("ok", 0)
    now = time.time()
    broken.setattr("core.queue.failures.time.time", lambda: now + OVERDUE_SECONDS)
    work()
    ready = client.get("/readyz?exclude=workers")
    assert (ready.status_code, ready.json()["status"], ready.json()["checks"]["erasures"]) == (200, "ready", "overdue")
    assert overdue(client) == 1
    assert ("maintenance.failed", logging.ERROR) in [(each.getMessage(), each.levelno) for each in caplog.records]
    broken.undo()
    work()
    assert (client.get("/readyz?exclude=workers").json()["checks"]["erasures"], overdue(client)) == ("ok", 0)
