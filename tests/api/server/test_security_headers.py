"""The headers of security are on every answer, and other sites' pages read nothing."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from api.server.app import create_app
from core.settings import Settings

EVERY = sorted(
    (method, re.sub(r"{\w+}", "x", context.path))
    for context in iter_route_contexts(create_app(Settings()).routes)
    for method in context.methods or ()
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

API_KEY = "2d711642b726b04401627ca9fbac32f5"


def policy_of(answer):
    parts = [part.split() for part in answer.headers["content-security-policy"].split(";")]
    return {name: sources for name, *sources in parts}


def assert_protected(answer):
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = policy_of(answer)
    assert (policy["default-src"], policy["frame-ancestors"]) == (["'none'"], ["'none'"])
    sources = {source for each in policy.values() for source in each}
    assert not sources & {"'unsafe-inline'", "'unsafe-eval'", "*", "https:"}


@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/nothing"), ("PUT", "/v1/jobs"), ("GET", "/v1/jobs/")])
def test_every_answer_has_them(client, method, path):
    answer = client.request(method, path, follow_redirects=False)
    assert_protected(answer)
    if path.startswith("/v1"):
        assert set(policy_of(answer)) == {"default-src", "base-uri", "form-action", "frame-ancestors"}


def test_also_those_that_no_route_makes(client, services, monkeypatch):
    assert_protected(client.post("/v1/subjects", content=b"x" * 100_000))  # a body that is too large
    monkeypatch.setattr(services.subjects, "page", None)
    mistake = client.get("/v1/subjects")
    assert mistake.status_code == 500
    assert_protected(mistake)


READS = [path for method, path in EVERY if method == "GET" and path.startswith("/v1")]


@pytest.mark.parametrize("path", [*READS, "/metrics"])
@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"sec-fetch-site": "cross-site"}, True),  # an image or a script of another site's page: no Origin
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:3000"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_foreign_pages_read_nothing(client, path, headers, refused):
    answer = client.get(path, headers=headers)
    codes = {403, 401} if path == "/metrics" else {403}
    assert (answer.status_code in codes) == refused, answer.text


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("pictures.example.com", True),
        ("PICTURES.example.com:443", True),
        ("a.hdb.example", True),
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("public.example:8443", True),
        ("hdb.example", False),
        ("a.b.hdb.example", False),
        ("evil.example", False),
        ("evil.example#pictures.example.com", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_only_allowed_hosts_are_answered(settings, services, host, allowed):
    names = {"allowed_hosts": "pictures.example.com, *.hdb.example", "public_url": "https://public.example/hdb"}
    given = Settings(redis_url=settings.redis_url, data_dir=settings.data_dir, api_keys=API_KEY, **names)
    app = create_app(given, services=services)
    client = TestClient(app, headers={"authorization": f"Bearer {API_KEY}", "host": host})
    for path in ("/v1/jobs", "/", "/openapi.json"):
        answer = client.get(path)
        assert (answer.status_code == 200) == allowed
        assert_protected(answer)
        assert allowed or (answer.json()["code"], "HDB_ALLOWED_HOSTS" in answer.json()["detail"]) == ("forbidden", True)
    assert client.get("/healthz").status_code == 200
