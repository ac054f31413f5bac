"""The OpenAPI document, completed so that clients can be generated from it. Every failure is a Problem."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.server import idempotency
from api.server.errors import PROBLEM_JSON, problems
from api.server.examples import example_of
from api.server.pending_responses import HEADER
from hyperdreambooth.schemas import (
    BATCH_ID,
    IMAGE_ID,
    JOB_ID,
    PACK_ID,
    SUBJECT_ID,
    WEBHOOK_ID,
    BatchCounts,
    BatchRequest,
    JobEvent,
    PersonalizeOptions,
    Problem,
)

JSON = "application/json"

_DESCRIPTION = """
One photo of a face becomes about 100 KB of personal weights, and those become pictures of that person: from any prompt
with `[V]` in it.

Every failure is an RFC 9457 problem (`application/problem+json`) with a stable `code` and a `detail` that says what to
do. Query parameters and body fields that an operation does not declare are refused with 422.
Photos and weights are biometric data: send them only with the consent of the person they show.

A test key (`hdb_test_...`) gets fixed pictures in about a second, free, from the same API. What it makes is apart, and
says `livemode` false; a job with the seed 4000000002 fails.
"""
_PARAMETERS = {
    "subject_id": ("A subject's `id`.", SUBJECT_ID),
    "job_id": ("A job's `id`.", JOB_ID),
    "batch_id": ("A batch's `id`.", BATCH_ID),
    "model_id": ("A model's `id`.", "faces-128"),
    "name": ("A style of the model, with hyphens for blanks.", "pencil-sketch"),
    "pack_id": ("A pack's `id`.", PACK_ID),
    "image_id": ("A picture's `id`.", IMAGE_ID),
    "webhook_id": ("A webhook's `id`.", WEBHOOK_ID),
    "if-none-match": ("The `ETag` of an answer that the caller has: 304 when it is still the same.", None),
}
"""Descriptions and examples of parameters that several operations have, by their names in small letters."""
_TAGS = ("subjects", "generations", "batches", "packs", "jobs", "images", "webhooks")
"""The order of the operations; those with other tags come last."""
_NOT_YET: dict[str, Any] = {"stage": None, "step": None, "total": None, "seconds": {}}
_JUST_ACCEPTED: dict[str, dict[str, Any]] = {
    "SubjectAnswer": {
        "status": "personalizing",
        "photos_kept": 1,
        "preview_ready": False,
        "likeness_by": {},
        **dict.fromkeys(("likeness", "tries", "kept_step", "weights", "preview", "bundle", "bundle_fingerprint")),
        **_NOT_YET,
    },
    "JobAnswer": {
        "status": "queued",
        "attempt": 0,
        "position": 2,
        "progress": 0.0,
        **dict.fromkeys(("started_at", "finished_at", "images")),
        **_NOT_YET,
    },
    "BatchAnswer": {
        "status": "running",
        "finished_at": None,
        "counts": {**dict.fromkeys(BatchCounts.model_fields, 0), "total": 4, "queued": 4},
    },
}
"""How the examples of models differ in a 202: the work has not begun."""


def install_openapi(app: FastAPI) -> None:
    """Make `app.openapi()` return the document of this service."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    document["paths"] = dict(sorted(document["paths"].items(), key=_place))
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            _drop_framework_errors(operation)
            _add_idempotency(operation)
            _describe_parameters(operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (Problem, PersonalizeOptions, JobEvent, BatchRequest):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    for operations in document["paths"].values():
        for operation in operations.values():
            _add_examples(operation, schemas)
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "`hdb_...`, or a test key, `hdb_test_...`: fixed pictures at once, free, kept apart.",
        }
    }
    document["security"] = [{}, {"key": []}]
    return document


def _add_idempotency(operation: dict[str, Any]) -> None:
    """Add the header and the problems of an Idempotency-Key to an operation that takes one."""
    if not any(parameter["name"] == HEADER for parameter in operation.get("parameters", [])):
        return
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            response.setdefault("headers", {})["Idempotent-Replayed"] = {
                "description": "`true` when this answer was given before.",
                "schema": {"type": "string"},
            }
    for number, added in problems(*idempotency.ERRORS).items():
        response = operation["responses"].setdefault(str(number), added)
        if response is not added:
            response["content"][PROBLEM_JSON]["examples"].update(added["content"][PROBLEM_JSON]["examples"])
            response["headers"].update(added["headers"])


def _describe_parameters(operation: dict[str, Any]) -> None:
    """Add the descriptions and examples that are the same everywhere."""
    for parameter in operation.get("parameters", []):
        _drop_null(parameter)
        description, example = _PARAMETERS.get(parameter["name"].lower(), ("", None))
        if description:
            parameter.setdefault("description", description)
        if example is not None:
            parameter.setdefault("example", example)
            if example[3] == "_":  # an id of ours
                parameter["schema"].setdefault("pattern", _pattern_of(example))


def _pattern_of(identifier: str) -> str:
    """The pattern of ids of the same kind as this example."""
    kind, rest = identifier[:4], identifier[4:]
    return f"^{kind}[0-9a-z]{{25}}{'-[0-9]{1,4}' if '-' in rest else ''}$"


def _drop_null(parameter: dict[str, Any]) -> None:
    """Remove null from the schema of an optional parameter: there is no null in a URL or a header."""
    kinds = parameter["schema"].pop("anyOf", [])
    kept = [kind for kind in kinds if kind != {"type": "null"}]
    parameter["schema"].update(kept[0] if len(kept) == 1 else {"anyOf": kept} if kept else {})


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add an example to every JSON body without one, and its model's description to an answer without one."""
    bodies = {"": operation.get("requestBody", {}), **operation["responses"]}
    for status, body in bodies.items():
        media = body.get("content", {}).get(JSON)
        if media is None:
            continue
        name = media["schema"].get("$ref", "").rpartition("/")[2]
        if not {"example", "examples"} & set(media):
            media["example"] = example_of(media["schema"], schemas)
            if status == "202":
                media["example"] |= _JUST_ACCEPTED.get(name, {})
        if body.get("description") == "Successful Response":
            body["description"] = schemas.get(name, {}).get("description", "The requested resource.")


def _place(path: tuple[str, dict[str, Any]]) -> int:
    tag = next(iter(path[1].values()))["tags"][0]
    return _TAGS.index(tag) if tag in _TAGS else len(_TAGS)


def _drop_framework_errors(operation: dict[str, Any]) -> None:
    """Drop the 422 that the framework adds, in a format of its own, where an operation has none: it is never sent."""
    body = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
    if body.get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        del operation["responses"]["422"]
