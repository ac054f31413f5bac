"""Two tenants, every route: a route that is new fails here until it is said how it is tried."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from api.server.app import create_app
from api.server.dependencies import the_photo_checker, the_resolver
from api.server.idempotency import idempotent
from core.settings import Settings
from core.tenants.api_keys import ApiKeys

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/docs", "/docs/{name}", "/assets/{name}"}
"""What tells nothing of any tenant."""
PROMPT = "a pencil sketch of a [V] face"
WEBHOOK_URL = "https://hooks.example.com/acme"


def operations(app):
    """(method, path) of everything the application answers to."""
    return sorted(
        (method, context.path)
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
        if method != "HEAD" and context.path not in OPEN
    )


EVERY = operations(create_app(Settings()))


@pytest.fixture
def app(settings, services, finder):
    app = create_app(settings, services=services)
    app.dependency_overrides[the_photo_checker] = lambda: finder
    app.dependency_overrides[the_resolver] = lambda: lambda name, port: ["93.184.215.14"]
    return app


@pytest.fixture
def tenants(app, store):
    """Clients of two tenants."""
    ring = ApiKeys(store)

    def client(tenant):
        _, key = ring.create(tenant, "test")
        return TestClient(app, headers={"authorization": f"Bearer {key}"}, client=("10.0.0.7", 5))

    return client("acme"), client("other")


@pytest.fixture
def things(tenants, photo, personalized, generated):
    """One of everything that acme can have: the name of a path's parameter -> an id."""
    acme, _ = tenants
    subject = acme.post("/v1/subjects", files={"photo": photo}, data={"consent": "true", "name": "Ada"}).json()
    personalized(subject["job_id"], "acme")
    job = acme.post("/v1/generations", json={"subject_id": subject["id"], "prompt": PROMPT}).json()
    (image,) = generated(job["id"], "acme")
    assert acme.get(f"/v1/jobs/{job['id']}").json()["status"] == "succeeded"
    queued = acme.post("/v1/generations", json={"subject_id": subject["id"], "prompt": PROMPT}).json()
    webhook = acme.post("/v1/webhooks", json={"url": WEBHOOK_URL}).json()
    batch = acme.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [subject["id"]]}).json()
    return {
        "batch_id": batch["id"],
        "subject_id": subject["id"],
        "job_id": queued["id"],
        "over_id": job["id"],
        "image_id": image,
        "model_id": "faces-128",
        "name": "pencil-sketch",
        "pack_id": acme.post("/v1/packs", json={"name": "Drawn", "prompts": [PROMPT]}).json()["id"],
        "webhook_id": webhook["id"],
    }


def tried(client, method, path, things, photo):
    """The answer to a request for acme's thing, with a good body."""
    name = path
    if path == "/v1/jobs/{job_id}/events":  # those of a job that is over end by themselves
        path = path.replace("job_id", "over_id")
    for parameter in re.findall(r"{(\w+)}", path):
        assert parameter in things, f"{path}: say in `things` how acme comes to a {parameter}"
        path = path.replace(f"{{{parameter}}}", things[parameter])
    bodies = {
        "/v1/subjects": {"files": {"photo": photo}, "data": {"consent": "true"}},
        "/v1/subjects/{subject_id}/photos": {"files": {"photo": photo}, "data": {"consent": "true"}},
        "/v1/generations": {"json": {"subject_id": things["subject_id"], "prompt": PROMPT}},
        "/v1/jobs/{job_id}/cancel": {},
        "/v1/batches": {"json": {"prompts": [PROMPT], "subject_ids": [things["subject_id"]]}},
        "/v1/batches/{batch_id}/cancel": {},
        "/v1/photos/check": {"files": {"photo": photo}},
        "/v1/packs": {"json": {"name": "Drawn", "prompts": [PROMPT]}},
        "/v1/webhooks": {"json": {"url": "https://hooks.example.com/"}},
        "/v1/webhooks/{webhook_id}/test": {},
        "/v1/webhooks/{webhook_id}/rotate": {},
        "/v1/webhooks/{webhook_id}/enable": {},
    }
    if method in ("POST", "PUT", "PATCH"):
        assert name in bodies, f"{name}: say in `bodies` what is sent there, with acme's things in it"
        return client.request(method, path, **bodies[name])
    return client.request(method, path)


SHARED = {"model_id", "name"}
"""Names of what is everybody's."""
OWN = {
    ("POST", "/v1/subjects"),
    ("GET", "/v1/subjects"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/images"),
    ("GET", "/v1/packs"),
    ("POST", "/v1/packs"),
    ("POST", "/v1/photos/check"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model_id}/samples/{name}"),
    ("GET", "/v1/usage"),
    ("POST", "/v1/webhooks"),
    ("GET", "/v1/webhooks"),
}
"""What another tenant may do as well, and then sees only its own."""


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_another_tenants_things_are_not_there(tenants, things, store, photo, method, path):
    acme, other = tenants
    theirs = {key: data for key, data in store.objects.items() if "acme" in key}
    answer = tried(other, method, path, things, photo)
    for thing in ["Ada", "acme", *(thing for key, thing in things.items() if key not in SHARED)]:
        assert thing not in answer.text.replace(answer.request.url.path, "") or answer.status_code == 404
    if (method, path) in OWN:
        assert answer.status_code in (200, 201, 202)
    else:
        assert answer.status_code == 404, answer.text
        assert answer.json()["code"] in {
            "subject-not-found",
            "job-not-found",
            "batch-not-found",
            "image-not-found",
            "pack-not-found",
            "webhook-not-found",
        }
    assert {key: data for key, data in store.objects.items() if "acme" in key} == theirs
    assert acme.get(f"/v1/jobs/{things['job_id']}").json()["status"] == "queued"


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_its_own_tenant_does_reach_them(tenants, things, photo, method, path):
    """Otherwise the test above would prove nothing."""
    acme, _ = tenants
    answer = tried(acme, method, path, things, photo)
    assert answer.status_code < 400, answer.text


@pytest.mark.parametrize(("method", "path"), EVERY)
@pytest.mark.parametrize("key", [None, "hdb_" + "0" * 16 + "_" + "0" * 64])
def test_without_a_good_key_nothing_is_answered(app, store, things, photo, method, path, key):
    before = dict(store.objects)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = tried(TestClient(app, headers=headers, client=("127.0.0.1", 5)), method, path, things, photo)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert store.objects == before


def test_every_post_is_safe_to_repeat(app):
    """It takes an Idempotency-Key, or is in itself the same when it is done twice."""
    repeatable = {
        "/v1/jobs/{job_id}/cancel",
        "/v1/batches/{batch_id}/cancel",
        "/v1/photos/check",
        "/v1/webhooks/{webhook_id}/enable",
    }
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and "POST" in (context.methods or ()):
            calls = {dependency.call for dependency in context.original_route.dependant.dependencies}
            assert idempotent in calls or context.path in repeatable, context.path


def test_keys_of_idempotency_are_each_tenants_own(tenants, photo):
    answers = [
        client.post(
            "/v1/subjects", files={"photo": photo}, data={"consent": "true"}, headers={"idempotency-key": "same"}
        )
        for client in tenants
    ]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert "idempotent-replayed" not in answers[1].headers
