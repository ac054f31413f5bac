from __future__ import annotations

from datetime import UTC, datetime

from fastapi.testclient import TestClient

from api.server.app import create_app
from core.jobs.ledger import Ledger
from core.tenants.api_keys import ApiKeys

PROMPT = "a pencil sketch of a [V] face"


def test_usage_counts_what_ended_and_survives_deletion(client, subject_id, generated):
    jobs = [
        client.post("/v1/generations", json={"subject_id": subject_id, "prompt": PROMPT, "n": 2}).json()["id"]
        for _ in range(2)
    ]
    generated(jobs[0])
    live = client.get("/v1/usage").json()["live"]
    assert live == {"personalize": 0, "generate": 1, "batch": 0, "running": 0}
    client.post(f"/v1/jobs/{jobs[1]}/cancel")
    client.delete(f"/v1/subjects/{subject_id}")
    usage = client.get("/v1/usage", params={"days": 2}).json()
    assert usage["tenant"] == "local"
    total = usage["total"]
    assert total["jobs"] == {"personalize": {"succeeded": 1}, "generate": {"succeeded": 1, "canceled": 1}}
    assert (total["pictures"], total["seconds"]) == (2, 3.0)
    assert sum(day["pictures"] for day in usage["days"]) == 2
    assert usage["last_day"] >= usage["days"][-1]["day"]
    assert subject_id not in client.get("/v1/usage").text


def test_nothing_is_a_good_answer_and_wrong_days_are_not(client):
    usage = client.get("/v1/usage").json()
    assert (usage["total"], usage["days"]) == ({"jobs": {}, "pictures": 0, "seconds": 0.0}, [])
    assert usage["last_day"] == datetime.now(UTC).date().isoformat()
    for days in ("0", "93", "x"):
        refused = client.get("/v1/usage", params={"days": days})
        assert (refused.status_code, refused.json()["field"]) == (422, "days")


def test_usage_is_read_without_redis(client, job_service, subject_id, monkeypatch):
    import redis

    dead = redis.Redis(port=9, decode_responses=True)
    monkeypatch.setattr(job_service, "ledger", Ledger(dead, job_service.ledger.limits))
    usage = client.get("/v1/usage").json()
    assert usage["live"] is None
    assert usage["total"]["jobs"] == {"personalize": {"succeeded": 1}}
    metrics = client.get("/metrics").text
    assert "hdb_redis_up 0.0" in metrics
    assert "hdb_jobs_queued{" not in metrics


def test_metrics_count_by_template_and_name_no_one(client, subject_id):
    client.get(f"/v1/subjects/{subject_id}")
    client.get("/v1/subjects/sub_nobody")
    client.get("/made/up/by/strangers")
    client.post("/v1/generations", json={"subject_id": subject_id, "prompt": PROMPT})
    client.request("BREW", "/healthz")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    assert 'hdb_requests_total{method="GET",route="/v1/subjects/{subject_id}",status="200"} 1.0' in text
    assert 'hdb_requests_total{method="GET",route="/v1/subjects/{subject_id}",status="404"} 1.0' in text
    assert 'hdb_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'hdb_requests_total{method="other",' in text
    assert 'hdb_jobs_queued{kind="generate"} 1.0' in text
    assert "hdb_jobs_running 0.0" in text
    assert "hdb_redis_up 1.0" in text
    assert 'hdb_request_seconds_bucket{le="0.005"' in text
    for word in (subject_id, "strangers", "pencil", "local"):
        assert word not in text


def test_metrics_are_for_this_machine_or_for_a_key(settings, job_service, store):
    def asked(address, host, **headers):
        client = TestClient(create_app(settings, job_service=job_service), host, client=(address, 5))
        return client.get("/metrics", headers=headers).status_code

    here, there = ("127.0.0.1", "http://127.0.0.1:8000"), ("10.0.0.7", "http://faces.example")
    assert asked(*here) == 200
    assert asked(*there) == 403
    assert asked(here[0], there[1]) == 403, "a proxy on this machine"
    _, key = ApiKeys(store).create("acme", "prometheus")
    assert asked(*here) == 200
    assert asked(*there) == 401
    assert asked(*there, authorization=f"Bearer {key}") == 200
