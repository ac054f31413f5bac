from __future__ import annotations

import re
import time

import pytest
from fastapi.testclient import TestClient

from api.server.app import create_app
from api.server.dependencies import the_photo_checker
from core.errors import NoFace
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
    assert [post_photo(client, photo).status_code for _ in range(3)] == [422] * 3, "what is refused costs nothing"
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


def test_the_local_tenant_has_no_limits_unless_it_is_asked_for(client, settings, services):
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
