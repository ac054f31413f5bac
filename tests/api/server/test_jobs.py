from __future__ import annotations

import threading
import time

import pytest
from fastapi.testclient import TestClient

from api.server.app import create_app
from api.server.routes.jobs import wait_seconds
from core.jobs.ledger import Progress


@pytest.fixture
def job_id(client, photo):
    answer = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})
    return answer.json()["job_id"]


def test_a_job_is_read_with_its_place_and_its_progress(client, job_id, claim):
    queued = client.get(f"/v1/jobs/{job_id}")
    assert (queued.json()["status"], queued.json()["position"]) == ("queued", 0)
    assert queued.headers["retry-after"] == "1"
    claim(job_id).at("finetune", 7, 40)
    running = client.get(f"/v1/jobs/{job_id}").json()
    assert (running["status"], running["position"], running["attempt"]) == ("running", None, 1)
    assert (running["stage"], running["step"], running["total"]) == ("finetune", 7, 40)


def test_what_has_not_changed_is_not_sent_again(client, job_id, claim):
    first = client.get(f"/v1/jobs/{job_id}")
    same = client.get(f"/v1/jobs/{job_id}", headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert "content-type" not in same.headers
    assert same.headers["etag"] == first.headers["etag"]
    assert same.headers["retry-after"] == "1"
    claim(job_id)
    changed = client.get(f"/v1/jobs/{job_id}", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200


def test_what_is_over_says_so(client, job_id, personalized):
    personalized(job_id)
    answer = client.get(f"/v1/jobs/{job_id}")
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["links"]["weights"].endswith("/weights")
    assert answer.json()["seconds"] == {"finetune": 1.5}
    assert "retry-after" not in answer.headers


def test_what_redis_has_forgotten_is_read_from_the_store(client, services, job_id, subject_id, personalized):
    personalized(job_id)
    waiting = client.post("/v1/generations", json={"subject_id": subject_id, "prompt": "a [V] face"}).json()["id"]
    before = client.get(f"/v1/jobs/{job_id}").json()
    services.redis.flushdb()
    assert client.get(f"/v1/jobs/{job_id}").json() == before
    assert client.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"


def test_without_redis_what_is_over_can_be_read(client, settings, services, job_id, personalized):
    gone = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"}), services=services)
    with TestClient(gone, "http://127.0.0.1:8000", client=("127.0.0.1", 5)) as other:
        refused = other.get(f"/v1/jobs/{job_id}")
        assert (refused.status_code, refused.json()["code"]) == (503, "broker-unavailable")
        personalized(job_id)
        assert other.get(f"/v1/jobs/{job_id}").json() == client.get(f"/v1/jobs/{job_id}").json()


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 0),
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("return=minimal; foo, Wait = 7", 7),
        ("wait=600", 60),
        ("wait=-1", 0),
        ("await=5", 0),
        ("wait=soon", 0),
    ],
)
def test_the_preference_is_understood(prefer, seconds):
    assert wait_seconds(prefer) == seconds


def test_waiting_ends_with_the_job(client, job_id, personalized):
    ending = threading.Timer(0.4, personalized, [job_id])
    ending.start()
    begun = time.monotonic()
    answer = client.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=30"})
    ending.join()
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=30"
    assert 0.3 < time.monotonic() - begun < 15


def test_waiting_ends_when_time_is_up_and_holds_up_no_one_else(client, job_id):
    answers = []

    def wait():
        answers.append(client.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=2"}))

    waiters = [threading.Thread(target=wait) for _ in range(60)]  # more than there are threads to serve them
    for waiter in waiters:
        waiter.start()
    assert client.get("/readyz?exclude=workers").status_code == 200
    assert answers == [], "this was answered while all of them still waited"
    for waiter in waiters:
        waiter.join()
    assert [answer.json()["status"] for answer in answers] == ["queued"] * 60


def test_a_queued_job_is_canceled_at_once_and_only_once(client, job_id):
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "canceled")
    again = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job-over")


def test_a_running_job_is_asked_to_stop(client, job_id, claim):
    claim(job_id)
    answer = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (answer["status"], answer["cancel_requested"]) == ("running", True)


@pytest.fixture
def listed(client, photo, subject_id):
    """Services of one subject, newest first, and of another one."""
    asked = {"subject_id": subject_id, "prompt": "a [V] face"}
    made = [client.get(f"/v1/subjects/{subject_id}").json()["job_id"]]
    for _ in range(3):
        time.sleep(0.002)
        made.append(client.post("/v1/generations", json=asked).json()["id"])
    time.sleep(0.002)
    other = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    client.post(f"/v1/jobs/{made[1]}/cancel")
    return [other["job_id"], *reversed(made)]


def test_jobs_come_in_pages_newest_first(client, listed):
    pages, query = [], {"limit": 2}
    while True:
        page = client.get("/v1/jobs", params=query).json()
        pages.append([job["id"] for job in page["jobs"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [job for page in pages for job in page] == listed
    (first, *_) = client.get("/v1/jobs").json()["jobs"]
    assert first == client.get(f"/v1/jobs/{listed[0]}").json()


def test_jobs_can_be_filtered(client, listed, subject_id):
    def found(**query):
        return [job["id"] for job in client.get("/v1/jobs", params=query).json()["jobs"]]

    assert found(status="queued") == [listed[0], listed[1], listed[2]]
    assert found(status="canceled") == [listed[3]]
    assert found(status="succeeded", kind="generate") == []
    assert found(kind="personalize") == [listed[0], listed[4]]
    assert found(subject_id=subject_id) == listed[1:]
    assert found(subject_id=subject_id, status="queued", kind="generate") == listed[1:3]
    client.delete(f"/v1/subjects/{subject_id}")
    assert found() == [listed[0]]
    assert found(subject_id=subject_id) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "done"}, "status"),
        ({"kind": "train"}, "kind"),
        ({"subject_id": "../x"}, "subject_id"),
        ({"cursor": "../x"}, "cursor"),
        ({"cursor": "sub_" + "0" * 25}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
    ],
)
def test_filters_that_mean_nothing_are_refused(client, query, field):
    answer = client.get("/v1/jobs", params=query)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid-input", field)


def test_every_step_changes_the_etag(client, job_id, claim):
    held, tags = claim(job_id), set()
    for step in (1, 2, 2):
        held.services.claims.beat(held.assignment, Progress("finetune", step, 9))  # as a worker does between events
        tags.add(client.get(f"/v1/jobs/{job_id}").headers["etag"])
    assert len(tags) == 2


@pytest.mark.parametrize("identifier", ["job_" + "0" * 25, "job_x", "x", ".."])
def test_unknown_jobs_are_404(client, identifier):
    assert client.get(f"/v1/jobs/{identifier}").status_code == 404
    assert client.post(f"/v1/jobs/{identifier}/cancel").status_code == 404
