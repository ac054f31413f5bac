"""Behind a proxy: links are what the caller can follow, and only named proxies are believed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.responses import JSONResponse

import api.server
from api.server.app import create_app
from api.server.dependencies import the_photo_checker, the_resolver
from core.errors import SettingsError
from core.settings import Settings, load_settings

PROMPT = "a pencil sketch of a [V] face"
FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-host": "pictures.example.com", "x-forwarded-prefix": "/hdb"}
API_KEY = "2d711642b726b04401627ca9fbac32f5"
KEY = {"authorization": f"Bearer {API_KEY}"}


@pytest.fixture
def behind(settings, services, finder, decoder):
    """A client of the service with these settings, as if at this address."""

    def client(address="10.0.0.2", keys=API_KEY, **changes):
        given = Settings(**settings.model_dump(exclude={*changes, "api_keys"}), **changes, api_keys=keys)
        app = create_app(given, services=services)
        app.state.decoder = decoder
        app.dependency_overrides[the_photo_checker] = lambda: finder
        app.dependency_overrides[the_resolver] = lambda: lambda name, port: ["93.184.215.14"]
        app.add_route("/whoami", who_asks)
        return TestClient(app, headers=KEY if keys else {}, client=(address, 5))

    return client


async def who_asks(request):
    return JSONResponse([request.client.host, str(request.url)])


def paths_in(value):
    """All texts in a document that name a path of this service."""
    if isinstance(value, dict | list):
        values = value.values() if isinstance(value, dict) else value
        return [found for each in values for found in paths_in(each)]
    return [value] if isinstance(value, str) and "/v1/" in value else []


def all_answers(client, photo, personalized, generated):
    """One of every answer that has links in it."""
    created = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})
    subject = created.json()
    yield created
    personalized(subject["job_id"])
    yield client.post(f"/v1/subjects/{subject['id']}/photos", files={"photo": photo}, data={"consent": "true"})
    made = client.post("/v1/generations", json={"subject_id": subject["id"], "prompt": PROMPT})
    yield made
    generated(made.json()["id"])
    batch = client.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [subject["id"]]})
    yield batch
    yield client.post("/v1/webhooks", json={"url": "https://hooks.example.com/x"})
    job, items = f"/v1/jobs/{made.json()['id']}", f"/v1/batches/{batch.json()['id']}"
    for path in (job, f"{job}/events", items, f"{items}/items", f"{items}/results"):
        yield client.get(path)
    for path in ("/v1/subjects", f"/v1/subjects/{subject['id']}", "/v1/jobs", "/v1/batches", "/v1/models"):
        yield client.get(path)
        yield client.get(f"{path}/?limit=5", follow_redirects=False)


def documents_of(answer):
    """What an answer says, also line by line: a stream of events, JSONL."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize(
    ("settings_of", "headers", "base"),
    [
        ({"public_url": "https://pictures.example.com/hdb/"}, {}, "https://pictures.example.com/hdb"),
        ({"public_url": "https://pictures.example.com"}, FORWARDED, "https://pictures.example.com"),
        ({"trusted_proxies": "10.0.0.0/8"}, FORWARDED, "/hdb"),
        ({"trusted_proxies": "10.0.0.3"}, FORWARDED, ""),
        ({}, FORWARDED, ""),
    ],
)
def test_every_link_can_be_followed(behind, photo, personalized, generated, settings_of, headers, base):
    client = behind(**settings_of)
    client.headers.update(headers)
    seen = 0
    for answer in all_answers(client, photo, personalized, generated):
        assert answer.status_code < 400, answer.text
        found = [path for document in documents_of(answer) for path in paths_in(document)]
        found += [answer.headers["location"]] if "location" in answer.headers else []
        assert [path for path in found if not path.startswith(f"{base}/v1/")] == []
        seen += len(found)
    assert seen > 30
    assert client.get("/openapi.json").json().get("servers") == ([{"url": base}] if base else None)


def test_no_answer_is_made_with_a_path_that_is_not_a_link():
    """A path of this service in the code goes through `link`, or into `Location`."""
    for file in Path(api.server.__path__[0]).rglob("*.py"):
        tree = ast.parse(file.read_text())
        right = {
            id(part)
            for node in ast.walk(tree)
            if (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "link")
            or (isinstance(node, ast.Assign) and "Location" in ast.unparse(node.targets[0]))
            for part in ast.walk(node)
        }
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and id(node) not in right]
        assert [ast.unparse(node) for node in texts if ast.unparse(node)[2:].startswith("/v1/")] == [], file


@pytest.mark.parametrize(
    ("proxies", "forwarded", "caller"),
    [
        ("10.0.0.2", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.0/8", "127.0.0.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"),  # the caller wrote the first
        ("10.0.0.0/8", "10.0.0.9, 10.0.0.7", "10.0.0.9"),
        ("10.0.0.2", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.2", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.2", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.2", "nonsense", "unknown"),
        ("10.0.0.2", "", "unknown"),
        ("10.0.0.0/8", "127.0.0.1, nonsense, 10.0.0.7", "unknown"),
        ("::ffff:10.0.0.2", "203.0.113.9", "10.0.0.2"),
        ("10.0.0.3", "203.0.113.9", "10.0.0.2"),
        ("", "203.0.113.9", "10.0.0.2"),
    ],
)
def test_the_caller_is_whom_the_nearest_named_proxy_saw(behind, proxies, forwarded, caller):
    client = behind(trusted_proxies=proxies)
    assert client.get("/whoami", headers={"x-forwarded-for": forwarded}).json()[0] == caller


@pytest.mark.parametrize(
    ("header", "value", "url"),
    [
        ("x-forwarded-proto", "https", "https://testserver/whoami"),
        ("x-forwarded-proto", "javascript", "http://testserver/whoami"),
        ("x-forwarded-host", "a.example, b.example", "http://b.example/whoami"),
        ("x-forwarded-host", "a.example/x", "http://testserver/whoami"),
    ],
)
def test_what_a_named_proxy_says_is_taken_where_it_can_be_meant(behind, header, value, url):
    assert behind(trusted_proxies="10.0.0.2").get("/whoami", headers={header: value}).json()[1] == url
    assert behind().get("/whoami", headers={header: value}).json()[1] == "http://testserver/whoami"


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example", "/a b", '/a"><b', "hdb", "/", "/.."])
def test_a_prefix_that_is_no_path_is_ignored(behind, prefix):
    client = behind(trusted_proxies="10.0.0.2")
    answer = client.get("/v1/jobs/", headers={"x-forwarded-prefix": prefix}, follow_redirects=False)
    assert answer.headers["location"] == "/v1/jobs"


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded"])
def test_without_keys_a_proxy_that_hides_its_caller_is_refused(behind, header):
    local = {"host": "127.0.0.1:8000"}
    for proxies, value in (("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")):
        client = behind("127.0.0.1", keys="", trusted_proxies=proxies)
        assert client.get("/v1/jobs", headers=local).status_code == 200
        assert client.get("/v1/jobs", headers={**local, header: value}).status_code == 403


def test_a_public_service_needs_keys(settings):
    public = settings.model_copy(update={"public_url": "https://pictures.example.com"})
    with pytest.raises(SettingsError, match=r"pictures\.example\.com"):
        create_app(public)
    create_app(settings.model_copy(update={"public_url": "http://localhost:8080/hdb"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("public_url", "pictures.example.com"),
        ("public_url", "ftp://pictures.example.com"),
        ("public_url", "https://me:secret@pictures.example.com"),
        ("public_url", "https://pictures.example.com/?a=b"),
        ("public_url", "https://pictures.example.com/a b"),
        ("trusted_proxies", "proxy.example.com"),
        ("trusted_proxies", "10.0.0.1/8"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_start(name, value):
    with pytest.raises(SettingsError, match=f"HDB_{name.upper()}"):
        load_settings(**{name: value})
