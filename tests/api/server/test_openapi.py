"""The document is whole and true for every operation: a new one fails here until it says everything of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.server.app import create_app
from api.server.errors import STATUS
from core.settings import Settings

PROBLEM_JSON = "application/problem+json"
DOCUMENT: dict[str, Any] = create_app(Settings()).openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
EVERY = [
    pytest.param(path, operation, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
OF_TENANTS = [each for each in EVERY if each.values[0].startswith("/v1")]
every = pytest.mark.parametrize(("path", "operation"), EVERY)
of_tenants = pytest.mark.parametrize(("path", "operation"), OF_TENANTS)


def complaints(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with a value, by its schema."""
    whole = {**schema, "components": {"schemas": SCHEMAS}}
    found = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]


def examples_in(media: dict[str, Any]) -> list[Any]:
    single = [media["example"]] if "example" in media else []
    return single + [each["value"] for each in media.get("examples", {}).values()]


def parameters(operation: dict[str, Any], *where: str) -> list[dict[str, Any]]:
    return [each for each in operation.get("parameters", []) if each["in"] in where]


def headers(response: dict[str, Any]) -> set[str]:
    return {name.lower() for name in response.get("headers", {})}


@every
def test_it_says_what_it_is(path, operation):
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert len(operation["description"]) > 20
    assert operation["tags"]
    for parameter in operation.get("parameters", []):
        assert parameter.get("description"), f"{path}: describe {parameter['name']}"
        if parameter["in"] == "path":
            said = {"example", "examples"} & {*parameter, *parameter["schema"]}
            assert said, f"{path}: an example of {parameter['name']} (api/server/openapi.py)"


def test_no_two_operations_have_one_name():
    for key in ("summary", "operationId"):
        names = [each.values[1][key] for each in EVERY]
        assert len(set(names)) == len(names)


@every
def test_every_body_has_an_example_that_fits(path, operation):
    bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
    for name, body in bodies.items():
        for kind, media in body.get("content", {}).items():
            schema = media.get("schema")
            assert schema is not None, f"{name}: {kind} has no schema"
            if schema.get("format") == "binary":
                continue
            found = examples_in(media)
            assert found, f"{name}: {kind} has no example"
            for value in found if kind.endswith("json") else []:
                assert complaints(value, schema) == [], f"{name}: give these fields examples=[...]"


@of_tenants
def test_every_failure_is_a_problem_and_has_its_status(path, operation):
    for status, response in operation["responses"].items():
        if int(status) < 400:
            continue
        assert set(response["content"]) == {PROBLEM_JSON}, status
        examples = response["content"][PROBLEM_JSON]["examples"]
        for code, example in examples.items():
            assert STATUS[code] == int(status) == example["value"]["status"]
        waits = any(example["value"]["retryable"] for example in examples.values()) and status != "500"
        assert ("retry-after" in headers(response)) == waits, status


@of_tenants
def test_every_failure_that_can_happen_is_there(path, operation):
    """Those that follow from what the operation takes; its own it has to know itself."""
    wanted = {"401", "403", "413", "429", "500", "503"}
    if parameters(operation, "path"):
        wanted |= {"404"}
    if any(set(each["schema"]) & {"enum", "$ref", "minimum", "maximum"} for each in parameters(operation, "query")):
        wanted |= {"422"}
    if "requestBody" in operation:
        wanted |= {"400", "415", "422"}
    if any(each["name"].lower() == "idempotency-key" for each in parameters(operation, "header")):
        wanted |= {"400", "409", "422"}
    assert wanted <= set(operation["responses"])


@of_tenants
def test_what_can_be_asked_for_again_says_so(path, operation):
    answers = operation["responses"]
    if any(each["name"].lower() == "if-none-match" for each in parameters(operation, "header")):
        assert "304" in answers
        assert "etag" in headers(answers["200"])
    if "201" in answers:
        assert "location" in headers(answers["201"])


def test_all_references_in_the_document_exist():
    text = json.dumps(DOCUMENT)
    for reference in {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in SCHEMAS
    assert "HTTPValidationError" not in SCHEMAS
    assert "Successful Response" not in text


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_model_says_what_it_is(name):
    schema = SCHEMAS[name]
    assert schema.get("description"), name
    for example in schema.get("examples", []):
        assert complaints(example, schema) == []
