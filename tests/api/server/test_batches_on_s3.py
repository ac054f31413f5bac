"""A batch from its sending to its erasure, with everything of it in S3."""

from __future__ import annotations

import json

import pytest

from core.batches.scheduler import BatchScheduler
from core.storage import S3Store
from worker.maintenance import Maintenance

PROMPT = "a pencil sketch of a [V] face"


@pytest.fixture
def store(moto, bucket, tmp_path):
    return S3Store(bucket, f"batches/{tmp_path.name}", endpoint_url=moto, region="us-east-1")


@pytest.fixture
def feed(job_service):
    return lambda: BatchScheduler(job_service, pass_seconds=60).feed()


@pytest.fixture
def send(client, subject_id):
    """Sends lines: so many good ones, and a bad one."""

    def send(count):
        lines = [{"subject_id": subject_id, "prompt": f"{PROMPT} {number}", "seed": number} for number in range(count)]
        body = "".join(f"{json.dumps(line)}\n" for line in [*lines, {"prompt": PROMPT}])
        answer = client.post("/v1/batches", content=body, headers={"content-type": "application/jsonl"})
        assert answer.status_code == 202, answer.text
        return answer.json()

    return send


def results(client, batch):
    return [json.loads(line) for line in client.get(f"/v1/batches/{batch['id']}/results").text.splitlines()]


def test_a_batch_is_done(client, send, feed, generated, store):
    batch = send(5)
    assert (batch["counts"]["queued"], batch["counts"]["invalid"]) == (5, 1)
    feed()
    for line in results(client, batch)[:5]:
        generated(line["job_id"])
    feed()
    done = client.get(batch["links"]["self"]).json()
    assert (done["status"], done["counts"]["succeeded"], done["counts"]["invalid"]) == ("completed", 5, 1)
    *lines, wrong = results(client, batch)
    assert ([line["seed"] for line in lines], wrong["error"]["code"]) == ([0, 1, 2, 3, 4], "invalid-input")
    assert client.get(lines[4]["images"][0]["url"]).content.startswith(b"\x89PNG")
    page = client.get(f"{batch['links']['self']}/items?status=succeeded&limit=2").json()
    assert [item["index"] for item in page["items"]] == [0, 1]
    assert [each["id"] for each in client.get("/v1/batches").json()["batches"]] == [batch["id"]]
    assert list(store.list("batches/open/")) == []


def test_a_redis_that_comes_back_empty_costs_nothing(client, send, feed, generated, job_service, monkeypatch):
    monkeypatch.setattr("worker.maintenance._ACCEPTING_SECONDS", 0.0)
    batch = send(3)
    feed()
    generated(results(client, batch)[0]["job_id"])
    job_service.ledger.redis.flushdb()
    Maintenance(job_service).reconcile()
    feed()
    for line in results(client, batch)[1:3]:
        generated(line["job_id"])
    feed()
    assert client.get(batch["links"]["self"]).json()["status"] == "completed"


def test_deleting_the_subject_blanks_its_items_in_every_part(client, send, feed, subject_id, store):
    batch = send(101)
    client.delete(f"/v1/subjects/{subject_id}")
    feed()
    kept = [store.get(key) for key in store.list("")]
    assert not any(f"{PROMPT} ".encode() in data for data in kept)
    done = client.get(batch["links"]["self"]).json()
    assert (done["status"], done["counts"]["total"], done["counts"]["queued"]) == ("completed", 102, 0)


def test_deleting_the_batch_leaves_its_subject_and_nothing_else(client, send, feed, generated, store, subject_id):
    batch = send(2)
    feed()
    generated(results(client, batch)[0]["job_id"])
    jobs = [line["job_id"] for line in results(client, batch)[:2]]
    client.delete(batch["links"]["self"])
    feed()
    assert client.get(batch["links"]["self"]).status_code == 404
    assert client.get(f"/v1/subjects/{subject_id}").status_code == 200
    assert not any(name in key for name in [batch["id"], *jobs] for key in store.list("local/"))
