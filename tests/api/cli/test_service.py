from __future__ import annotations

import json


def test_models_are_a_table(hdb, client):
    models = client.get("/v1/models").json()["models"]
    head, *rows = hdb("models").out.splitlines()
    assert head.split() == ["ID", "PIXELS", "TOKENS", "HYPERNETWORK", "STEPS", "GUIDANCE", "PERSONALIZE-STEPS"]
    assert [row.split()[0] for row in rows] == [model["id"] for model in models]
    assert [json.loads(line) for line in hdb("models", "--json").out.splitlines()] == models


def test_usage_is_a_table_of_days_and_their_sum(hdb, client, subject_id, generated):
    job = client.post("/v1/generations", json={"subject_id": subject_id, "prompt": "a [V] face", "n": 2}).json()["id"]
    generated(job)
    canceled = client.post("/v1/generations", json={"subject_id": subject_id, "prompt": "a [V] face"}).json()["id"]
    client.post(f"/v1/jobs/{canceled}/cancel")
    head, day, total = (line.split() for line in hdb("usage", "--days", "2").out.splitlines())
    assert head == ["DAY", "SUCCEEDED", "FAILED", "CANCELED", "PICTURES", "SECONDS"]
    assert day[1:] == total[1:] == ["2", "0", "1", "2", "3"]
    assert total[0] == "total"
    assert json.loads(hdb("usage", "--json").out)["total"]["pictures"] == 2


def test_without_use_only_the_sum_is_there(hdb):
    assert hdb("usage").out.splitlines()[1:] == ["total  0          0       0         0         0"]


def test_days_that_mean_nothing_are_refused(hdb):
    done = hdb("usage", "--days", "0")
    assert done.status == 1
    assert done.err.startswith("hdb: ")
