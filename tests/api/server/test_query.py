"""Query parameters that a route does not declare are refused, on every route."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from api.server.app import create_app
from core.settings import Settings
from hyperdreambooth import schemas

IDS = {
    "subject_id": schemas.SUBJECT_ID,
    "job_id": schemas.JOB_ID,
    "batch_id": schemas.BATCH_ID,
    "image_id": schemas.IMAGE_ID,
    "webhook_id": schemas.WEBHOOK_ID,
    "pack_id": schemas.PACK_ID,
    "model_id": "faces-128",
    "name": "pencil-sketch",
}
ROUTES = sorted(
    (method, context.path)
    for context in iter_route_contexts(create_app(Settings()).routes)
    if isinstance(context.original_route, APIRoute)
    for method in context.methods
)


def test_all_routes_are_here():
    document = create_app(Settings()).openapi()
    documented = {(method, path) for path, each in document["paths"].items() for method in map(str.upper, each)}
    pages = {("GET", path) for path in ("/", "/assets/{name}", "/docs", "/docs/{name}", "/openapi.json")}
    assert documented | pages == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_an_unknown_parameter_is_refused_by_its_name(client, method, path):
    url = re.sub(r"{(\w+)}", lambda found: IDS[found[1]], path)
    answer = client.request(method, f"{url}?no_such=1", json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid-input", "no_such")
    assert answer.headers["content-type"] == "application/problem+json"


def test_all_unknown_parameters_are_named_and_the_known_ones_with_them(client):
    problem = client.get("/v1/jobs?kind=generate&type=generate&page=2").json()
    assert [error["field"] for error in problem["errors"]] == ["page", "type"]
    assert "cursor, kind, limit, status, subject_id" in problem["detail"]


def test_the_caller_is_authenticated_first(settings, services):
    keyed = settings.model_copy(update={"api_keys": ()})
    client = TestClient(create_app(keyed, services=services), "http://faces.example", client=("10.0.0.7", 5))
    assert client.get("/v1/jobs?no_such=1").status_code == 403


def test_known_parameters_pass(client):
    assert client.get("/v1/jobs?kind=generate&limit=3").status_code == 200
    assert client.get("/v1/jobs?kind=generate").json() == {"jobs": [], "next_cursor": None}
