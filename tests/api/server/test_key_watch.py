"""What takes long ends with its key."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from core.tenants.api_keys import ApiKeys

MOST_SECONDS = 5.0
"""How long a revoked key may be good for."""


def new_job(client, photo, **headers):
    return client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}, headers=headers).json()[
        "job_id"
    ]


@pytest.fixture
def key(store):
    """A key, from the beginning."""
    return ApiKeys(store).create("local", "ci")


@pytest.fixture
def job_id(client, photo, key):
    return new_job(client, photo, authorization=f"Bearer {key[1]}")


def revoked_soon(store, known) -> threading.Timer:
    timer = threading.Timer(1.5, ApiKeys(store).revoke, (known.id,))
    timer.start()
    return timer


def test_the_events_of_a_job_end_with_the_key(address, store, job_id, key):
    known, secret = key
    headers = {"authorization": f"Bearer {secret}"}
    timer = revoked_soon(store, known)
    with httpx.stream("GET", f"{address}/v1/jobs/{job_id}/events", headers=headers, timeout=20) as stream:
        assert stream.status_code == 200
        text = "".join(stream.iter_text())
    timer.join()
    assert "event: queued" in text
    revoked_at = ApiKeys(store).get(known.id).revoked_at
    assert time.time() - revoked_at < MOST_SECONDS
    again = httpx.get(f"{address}/v1/jobs/{job_id}/events", headers=headers)
    assert again.status_code == 401


def test_an_answer_that_is_waited_for_becomes_the_refusal(address, store, job_id, key):
    known, secret = key
    headers = {"authorization": f"Bearer {secret}", "prefer": "wait=20"}
    timer = revoked_soon(store, known)
    answer = httpx.get(f"{address}/v1/jobs/{job_id}", headers=headers, timeout=30)
    timer.join()
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert time.time() - ApiKeys(store).get(known.id).revoked_at < MOST_SECONDS


def test_a_stream_without_a_key_ends_when_there_are_keys(client, address, store, photo):
    job_id = new_job(client, photo)
    timer = threading.Timer(1.5, ApiKeys(store).create, ("acme", "first"))
    timer.start()
    with httpx.stream("GET", f"{address}/v1/jobs/{job_id}/events", timeout=20) as stream:
        assert "event: queued" in "".join(stream.iter_text())
    timer.join()


def test_a_good_key_is_served_for_as_long_as_it_takes(address, job_id, key):
    headers = {"authorization": f"Bearer {key[1]}", "prefer": "wait=5"}
    began = time.monotonic()
    answer = httpx.get(f"{address}/v1/jobs/{job_id}", headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert time.monotonic() - began >= 4.5
