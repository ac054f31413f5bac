from __future__ import annotations

import threading
import time

import pytest

from api.routes.jobs import wait_seconds


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


def test_waiting_ends_when_time_is_up_and_holds_up_nobody(client, job_id):
    answers = []

    def wait():
        answers.append(client.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=2"}))

    waiters = [threading.Thread(target=wait) for _ in range(60)]  # more than there are threads to serve them
    for waiter in waiters:
        waiter.start()
    assert client.get("/readyz").status_code == 200
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


@pytest.mark.parametrize("identifier", ["job_" + "0" * 25, "job_x", "x", ".."])
def test_unknown_jobs_are_404(client, identifier):
    assert client.get(f"/v1/jobs/{identifier}").status_code == 404
    assert client.post(f"/v1/jobs/{identifier}/cancel").status_code == 404
