"""Errors as HTTP: the status of each code, RFC 9457 problem documents, and their entries in the OpenAPI document."""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from core.errors import (
    HyperDreamBoothError,
    InvalidInput,
    NotFound,
    RateLimited,
    SeveralFaces,
    StoreUnavailable,
    Unavailable,
    UnsupportedMediaType,
    UploadTooLarge,
)
from hyperdreambooth.schemas import FieldProblem, Problem

PROBLEM_JSON = "application/problem+json"
PROBLEM_TYPE = "urn:hyperdreambooth:problem:"

log = logging.getLogger(__name__)


class MalformedRequest(HyperDreamBoothError):
    """The request's body cannot be read."""

    code = "malformed-request"


class Unauthorized(HyperDreamBoothError):
    """A valid API key is needed."""

    code = "unauthorized"


class Forbidden(HyperDreamBoothError):
    """This caller is not served."""

    code = "forbidden"


class TooManyWrongKeys(Unavailable):
    """Too many wrong keys came from this address."""

    code = "too-many-wrong-keys"


class MethodNotAllowed(HyperDreamBoothError):
    """This path does not answer to this method."""

    code = "method-not-allowed"


class InternalError(HyperDreamBoothError):
    """The service made a mistake."""

    code = "internal-error"
    retryable: ClassVar[bool] = True


class InvalidFields(InvalidInput):
    """The request cannot be carried out as it stands."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """`problems` names each field that is wrong, at least one."""
        first = problems[0]
        super().__init__(f"{first.field}: {first.message}" if first.field else first.message, field=first.field)
        self.problems = problems


class PhotosRefused(InvalidInput):
    """The photos cannot be used."""

    code = "photo-refused"

    def __init__(self, first: InvalidInput, problems: Sequence[FieldProblem]) -> None:
        """`first` is the error that is answered, `problems` are all reasons against all photos."""
        super().__init__(first.detail, field=first.field)
        self.first = first
        self.problems = problems


STATUS = {
    "malformed-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "subject-not-found": 404,
    "job-not-found": 404,
    "batch-not-found": 404,
    "image-not-found": 404,
    "pack-not-found": 404,
    "webhook-not-found": 404,
    "method-not-allowed": 405,
    "conflict": 409,
    "subject-not-ready": 409,
    "subject-busy": 409,
    "job-over": 409,
    "batch-over": 409,
    "answer-erased": 409,
    "weights-format": 409,
    "weights-mismatch": 409,
    "too-many-webhooks": 409,
    "webhook-disabled": 409,
    "request-in-progress": 409,
    "upload-too-large": 413,
    "image-too-many-pixels": 413,
    "unsupported-media-type": 415,
    "image-broken": 422,
    "image-animated": 422,
    "upload-refused": 422,
    "no-face": 422,
    "several-faces": 422,
    "face-too-small": 422,
    "face-too-blurred": 422,
    "face-turned-away": 422,
    "face-too-dark": 422,
    "face-too-bright": 422,
    "face-cut-off": 422,
    "different-people": 422,
    "photo-refused": 422,
    "invalid-input": 422,
    "webhook-refused": 422,
    "idempotency-key-reused": 422,
    "queue-full": 429,
    "rate-limited": 429,
    "too-many-wrong-keys": 429,
    "too-many-followers": 429,
    "internal-error": 500,
    "service-busy": 503,
    "unavailable": 503,
    "broker-unavailable": 503,
    "store-unavailable": 503,
}
"""The status of every code that a caller may see; any other error becomes an internal error with status 500."""

_OF_STARLETTE: dict[int, type[HyperDreamBoothError]] = {
    400: MalformedRequest,
    404: NotFound,
    405: MethodNotAllowed,
    413: UploadTooLarge,
    415: UnsupportedMediaType,
}


def describe(error: HyperDreamBoothError, *, request_id: str) -> Problem:
    """The problem document of an error. An error that is not in STATUS becomes an internal error without its detail."""
    problems = list(error.problems) if isinstance(error, InvalidFields | PhotosRefused) else None
    if isinstance(error, PhotosRefused):
        error = error.first
    if error.code not in STATUS:
        error = InternalError("Try again; if it happens again, report the request_id.")
    return Problem(
        type=PROBLEM_TYPE + error.code,
        title=error.title(),
        status=STATUS[error.code],
        detail=error.detail,
        code=error.code,
        field=error.field,
        retryable=error.retryable,
        request_id=request_id,
        errors=problems,
        faces=error.count if isinstance(error, SeveralFaces) else None,
    )


def problem_response(
    error: HyperDreamBoothError, *, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """The answer for an error, with `Retry-After` where trying again can help."""
    problem = describe(error, request_id=request_id)
    headers = {**(headers or {}), "X-Request-Id": request_id, "Cache-Control": "no-store"}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, headers, media_type=PROBLEM_JSON)


def request_id_of(request: Request) -> str:
    """The id of this request (observability.py)."""
    return str(getattr(request.state, "request_id", ""))


def install(app: FastAPI) -> None:
    """Make every failure of `app` a problem document, also those of the framework and unknown routes."""

    @app.exception_handler(HyperDreamBoothError)
    async def on_error(request: Request, error: HyperDreamBoothError) -> Response:
        if error.code not in STATUS:
            log.error("request.failed", exc_info=error, extra={"code": error.code})
        return problem_response(error, request_id=request_id_of(request))

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid_fields(error.errors()), request_id=request_id_of(request))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        without_slash = request.url.path.rstrip("/")
        if error.status_code == 404 and without_slash != request.url.path and _allowed(request, without_slash):
            query = f"?{request.url.query}" if request.url.query else ""
            return Response(status_code=307, headers={"Location": without_slash + query})
        kind = _OF_STARLETTE.get(error.status_code, InternalError)
        detail = f"{request.method} {request.url.path} is not part of this service." if kind is NotFound else ""
        headers = (
            {"Allow": _allowed(request, request.url.path)} if kind is MethodNotAllowed else dict(error.headers or {})
        )
        return problem_response(kind(detail), request_id=request_id_of(request), headers=headers)

    @app.exception_handler(Exception)
    async def on_exception(request: Request, _: Exception) -> Response:
        return problem_response(InternalError(), request_id=request_id_of(request))


def _allowed(request: Request, path: str) -> str:
    """All methods of a path, as an Allow header; the framework names those of one of its routes only."""
    methods: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        if context.path and compile_path(context.path)[0].match(path):
            methods |= set(context.methods or ())
    return ", ".join(sorted(methods))


def invalid_fields(errors: Sequence[Any], *, within: str = "") -> HyperDreamBoothError:
    """Pydantic's list of errors as one error; never with the values, which may be a prompt.

    `within` is put before the field names, for models that were read out of one field.
    """
    if any(error["type"] == "json_invalid" and not within for error in errors):
        return MalformedRequest("The body is not valid JSON.")
    problems = []
    for error in errors:
        path = [str(part) for part in error["loc"] if part not in ("body", "query", "path", "header")]
        name = ".".join([within, *path] if within else path)
        problems.append(FieldProblem(field=name or None, message=error["msg"]))
    return InvalidFields(problems)


def problems(*errors: type[HyperDreamBoothError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that can end in these errors: one entry a status, one example an error.

    Those of `_EVERYWHERE` that share a status with one of them are listed as well: an entry here replaces COMMON's.
    """
    examples: dict[int, dict[str, Any]] = defaultdict(dict)
    statuses = {STATUS[kind.code] for kind in errors}
    for kind in dict.fromkeys([*errors, *(kind for kind in _EVERYWHERE if STATUS[kind.code] in statuses)]):
        body = Problem(
            type=PROBLEM_TYPE + kind.code,
            title=kind.title(),
            status=STATUS[kind.code],
            detail=kind.title(),
            code=kind.code,
            retryable=kind.retryable,
            request_id="req_4f1c2ab09d3e5f67",
        )
        examples[STATUS[kind.code]][kind.code] = {"summary": kind.title(), "value": body.model_dump(exclude_none=True)}
    return {status: _response(status, found) for status, found in sorted(examples.items())}


def _response(status: int, examples: dict[str, Any]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"description": "The id of this request.", "schema": {"type": "string"}}}
    if status == 401:
        headers["WWW-Authenticate"] = {"description": "`Bearer`.", "schema": {"type": "string"}}
    waits = status == 409 and any(example["value"]["retryable"] for example in examples.values())
    if status in (429, 503) or waits:
        headers["Retry-After"] = {"description": "Seconds to wait before trying again.", "schema": {"type": "string"}}
    return {
        "description": " / ".join(example["summary"].rstrip(".") for example in examples.values()),
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }


_EVERYWHERE = (
    Unauthorized,
    Forbidden,
    UploadTooLarge,
    InvalidInput,
    RateLimited,
    TooManyWrongKeys,
    InternalError,
    StoreUnavailable,
)
COMMON = problems(*_EVERYWHERE)
"""The `responses` of every operation under /v1."""
