from __future__ import annotations

import json
import re
import time

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.server.app import create_app
from api.server.dependencies import the_photo_checker
from core.errors import NoFace, QueueFull, StoreUnavailable
from core.tenants.api_keys import ApiKeys


@pytest.fixture
def open_client(settings, services, store, finder):
    """A client with a key of its own tenant, and the settings it is told."""

    def make(tenant="acme", **changes):
        _, key = ApiKeys(store).create(tenant, "test")
        app = create_app(settings.model_copy(update=changes), services=services)
        app.dependency_overrides[the_photo_checker] = lambda: finder
        headers = {"authorization": f"Bearer {key}"}
        return TestClient(app, headers=headers, client=("10.0.0.7", 5), raise_server_exceptions=False)

    return make


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def post_photo(client, photo, **headers):
    return client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}, headers=headers)


def test_requests_are_counted_and_refused(open_client):
    client = open_client(requests_per_minute=3)
    answers = [client.get("/v1/subjects") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=3;w=60'}
    left = [re.fullmatch(r'"requests";r=(\d+);t=(\d+)', answer.headers["ratelimit"]) for answer in answers]
    assert [int(found[1]) for found in left] == [2, 1, 0, 0]
    assert 40 < int(left[3][2]) <= 60
    refused = answers[3]
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json()["retryable"]) == ("rate-limited", True)
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert client.get("/healthz").status_code == 200
    assert open_client("other", requests_per_minute=3).get("/v1/subjects").status_code == 200


def test_a_tenants_keys_share_one_limit(open_client):
    first, second = open_client(requests_per_minute=2), open_client(requests_per_minute=2)
    assert [client.get("/v1/usage").status_code for client in (first, second, first)] == [200, 200, 429]


def test_personalizing_has_a_limit_of_its_own(open_client, photo, finder, store):
    client = open_client(personalizations_per_hour=2)
    finder.refusal = NoFace("Send one.")
    assert client.post("/v1/subjects", files={"photo": photo}, data={"consent": "no"}).status_code == 422
    finder.refusal = None
    first = post_photo(client, photo, **{"idempotency-key": "k"})
    assert '"personalizations";q=2;w=3600' in first.headers["ratelimit-policy"]
    assert '"personalizations";r=1;' in first.headers["ratelimit"]
    again = post_photo(client, photo, **{"idempotency-key": "k"})
    assert again.headers["idempotent-replayed"] == "true"
    assert post_photo(client, photo).status_code == 202
    before = list(store.list(""))
    refused = post_photo(client, photo)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert "personalizations in 3600 seconds" in refused.json()["detail"]
    assert list(store.list("")) == before
    assert client.get("/v1/subjects").status_code == 200


@pytest.mark.parametrize("broken", [True, False], ids=["a file that cannot be decoded", "a photo without a face"])
def test_refused_photos_are_counted(open_client, photo, finder, broken):
    client = open_client(personalizations_per_hour=3)
    finder.refusal = NoFace("Send one.")
    answers = [post_photo(client, b"GIF89a" if broken else photo) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [415 if broken else 422] * 3 + [429]


def test_checks_of_photos_are_counted(open_client, photo):
    client = open_client(personalizations_per_hour=1)
    answers = [client.post("/v1/photos/check", files={"photo": photo}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]


def test_what_the_service_is_to_blame_for_is_not_counted(open_client, photo, services, monkeypatch):
    client = open_client(personalizations_per_hour=1)
    for error, status in ((QueueFull(), 429), (StoreUnavailable(), 503), (RuntimeError(), 500)):
        with monkeypatch.context() as patch:
            patch.setattr(services.subjects, "create", failing(error))
            assert post_photo(client, photo).status_code == status
    assert post_photo(client, photo).status_code == 202


def test_keys_of_the_settings_have_limits(settings, services):
    key = "2d711642b726b04401627ca9fbac32f5"
    changes = {"api_keys": (SecretStr(key),), "requests_per_minute": 1}
    app = create_app(settings.model_copy(update=changes), services=services)
    client = TestClient(app, headers={"authorization": f"Bearer {key}"}, client=("10.0.0.7", 5))
    assert [client.get("/v1/subjects").status_code for _ in range(2)] == [200, 429]


def test_callers_without_a_key_have_no_limits_unless_it_is_asked_for(client, settings, services):
    assert "ratelimit" not in client.get("/v1/subjects").headers
    limited = create_app(settings.model_copy(update={"limit_local": True, "requests_per_minute": 1}), services=services)
    local = TestClient(limited, "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    assert [local.get("/v1/subjects").status_code for _ in range(2)] == [200, 429]


def test_nought_is_no_limit(open_client):
    assert "ratelimit" not in open_client(requests_per_minute=0).get("/v1/subjects").headers


def test_without_redis_what_does_not_need_it_is_answered(open_client):
    client = open_client(requests_per_minute=1, redis_url="redis://127.0.0.1:9/0")
    began = time.monotonic()
    for _ in range(5):
        answer = client.get("/v1/subjects")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
    assert time.monotonic() - began < 3


def test_keys_are_asked_before_anything_is_counted(open_client, services):
    client = open_client(requests_per_minute=1)
    for _ in range(3):
        assert client.get("/v1/subjects", headers={"authorization": "Bearer x"}).status_code == 401
    assert client.get("/v1/subjects").status_code == 200


def test_work_is_limited_before_it_is_accepted(open_client, photo, personalized, store):
    client = open_client(pictures_per_hour=60)
    subject = post_photo(client, photo).json()
    personalized(subject["job_id"], "acme")
    body = {"subject_id": subject["id"], "prompt": "a [V] face", "n": 16}
    before = list(store.list("acme/jobs")) + list(store.list("pending/"))
    never = client.post("/v1/generations", json=body | {"steps": 100, "width": 1024, "height": 1024})
    assert (never.status_code, never.json()["code"]) == (422, "invalid-input")
    assert "fewer steps" in never.json()["detail"]
    answers = [client.post("/v1/generations", json=body) for _ in range(7)]
    assert {answer.status_code for answer in answers} == {202, 429}
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert '"pictures";q=60;w=3600' in refused.headers["ratelimit-policy"]
    accepted = sum(answer.status_code == 202 for answer in answers)
    assert len(list(store.list("acme/jobs")) + list(store.list("pending/"))) == len(before) + accepted
    assert client.post("/v1/generations", json=body | {"subject_id": "sub_" + "0" * 25}).status_code == 404


def test_what_is_refused_is_no_work(open_client):
    client = open_client(pictures_per_hour=20)
    body = {"subject_id": "sub_" + "0" * 25, "prompt": "a [V] face", "n": 16}
    assert [client.post("/v1/generations", json=body).status_code for _ in range(4)] == [404] * 4


def test_a_batch_is_limited_in_work(open_client, photo, personalized):
    client = open_client(batch_pictures=30)
    subject = post_photo(client, photo).json()
    personalized(subject["job_id"], "acme")
    lines = [json.dumps({"subject_id": subject["id"], "prompt": "a [V] face", "n": n}) for n in (16, 15)]
    kind = {"content-type": "application/jsonl"}
    refused = client.post("/v1/batches", content="\n".join(lines), headers=kind)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")
    assert "as much work as 30 pictures" in refused.json()["detail"]
    assert client.post("/v1/batches", content=lines[0], headers=kind).status_code == 202


def test_a_full_share_of_the_queue_keeps_no_other_tenant_out(open_client, photo):
    greedy, other = open_client("greedy"), open_client("other")
    answers = [post_photo(greedy, photo) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429] * 2
    assert "3 of your jobs are waiting" in answers[-1].json()["detail"]
    assert post_photo(other, photo).status_code == 202
