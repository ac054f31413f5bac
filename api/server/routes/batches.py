"""Batches: many prompts with many subjects, done when nothing else waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import anyio
from anyio import CancelScope, to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from api.server.auth import Tenant
from api.server.dependencies import BatchServiceDep, RequestIdDep, SettingsDep
from api.server.errors import COMMON, MalformedRequest, invalid_fields, problems
from api.server.idempotency import Idempotent, IdempotentRoute, idempotent_once_read
from api.server.jsonl import KINDS, BatchBody, add_item, add_lines, media_type
from api.server.model import Model, ModelDep
from api.server.pending_responses import note_made
from api.server.public_address import link
from api.server.requests import GENERATION_ERRORS
from api.server.responses import NOT_MODIFIED, cacheable, image_answer, preferred, when
from core import errors
from core.batches.records import BatchState, ItemError, ItemWithJob
from core.batches.upload import BatchUpload, UploadLimits
from core.ids import is_test
from core.records import GenerateResult, ItemStatus
from core.settings import Settings
from hyperdreambooth import schemas
from hyperdreambooth.schemas import SUBJECT_ID, FieldProblem

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=COMMON, route_class=IdempotentRoute)

MAX_SEND_SECONDS = 900.0
"""How long a batch may take to be sent."""
_PROMPT = "a pencil sketch of a [V] face"
RESULT_KINDS = ("application/x-ndjson", "text/plain")
_LINES = '{"custom_id": "ada-1", "subject_id": "' + SUBJECT_ID + '", "prompt": "' + _PROMPT + '"}\n'
_RESULT = schemas.BatchItemAnswer(
    index=0,
    line=1,
    custom_id="ada-1",
    status=schemas.ItemStatus.CANCELED,
    job_id=None,
    prompt=_PROMPT,
    seed=7,
    images=None,
).model_dump_json()
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}},
            **{
                kind: {
                    "schema": {"type": "string", "description": "A BatchItem in each line; at most 32 MB."},
                    "example": _LINES,
                }
                for kind in KINDS
            },
        },
    }
}


def _cursor(pattern: str) -> Any:
    return Query(pattern=pattern, description="The `next_cursor` of the page before, unchanged.")


_FAILURES = (errors.BatchNotFound, errors.StoreUnavailable)


@router.post(
    "",
    status_code=202,
    summary="Make many pictures",
    dependencies=[BatchBody, Idempotent],
    openapi_extra=_BODY,
    responses={
        202: {"headers": {"Location": {"description": "The batch.", "schema": {"type": "string"}}}},
        **problems(*GENERATION_ERRORS, errors.Unavailable),
    },
)
async def create_batch(
    request: Request,
    response: Response,
    batches: BatchServiceDep,
    tenant: Tenant,
    settings: SettingsDep,
    request_id: RequestIdDep,
    model: ModelDep,
) -> schemas.BatchAnswer:
    """Up to 10,000 generations: every prompt with every subject as JSON, or a generation in each line as JSONL.

    An item whose line is wrong, or whose subject is not there or not ready, is `invalid`, and the others are done; only
    when nothing can be done the request is refused with what is wrong with the first item. A JSON body that does not
    fit its schema is refused as a whole. Items wait until nothing else does: they delay no other generations.
    """
    if media_type(request) not in ("application/json", *KINDS):
        raise errors.UnsupportedMediaType(f"Send Content-Type: application/json, or {KINDS[0]} with an item a line.")
    limits = UploadLimits(settings.batch_limit, settings.batch_pictures, request.app.state.work_model.of)
    open_upload = partial(batches.open_upload, tenant, limits, request_id=request_id)
    upload = await to_thread.run_sync(open_upload)
    try:
        with anyio.fail_after(MAX_SEND_SECONDS):
            await _fill(request, tenant, upload, await to_thread.run_sync(model))
        earlier = await note_made(request, upload.batch_id)
        if earlier and (state := await to_thread.run_sync(batches.find, tenant, earlier)):
            await to_thread.run_sync(upload.discard)
            return _answered(response, state, settings)
        made = await to_thread.run_sync(upload.commit)
    except BaseException as error:
        with CancelScope(shield=True):
            await to_thread.run_sync(upload.discard)
        if isinstance(error, TimeoutError):
            raise MalformedRequest(f"The body took more than {MAX_SEND_SECONDS:.0f} s to come in.") from None
        raise
    return _answered(response, made, settings)


@router.get("", summary="List batches", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
def list_batches(
    batches: BatchServiceDep,
    tenant: Tenant,
    settings: SettingsDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[str, _cursor(r"^(bat_[0-9a-z]{25})?$")] = "",
) -> schemas.BatchPage:
    """The batches, newest first, a page at a time."""
    found, after = batches.page(tenant, limit=limit, after=cursor)
    return schemas.BatchPage(batches=[_answer(state, settings) for state in found], next_cursor=after)


@router.get(
    "/{batch_id}",
    summary="Read a batch",
    response_model=schemas.BatchAnswer,
    responses={
        200: {
            "headers": {
                "ETag": {"description": "Changes with the batch.", "schema": {"type": "string"}},
                "Retry-After": {
                    "description": "Seconds to the next read, until it is over.",
                    "schema": {"type": "string"},
                },
            }
        },
        **NOT_MODIFIED,
        **problems(*_FAILURES),
    },
)
def read_batch(
    batch_id: str,
    batches: BatchServiceDep,
    tenant: Tenant,
    settings: SettingsDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How many of its items stand how. Poll with `If-None-Match` and `Retry-After`."""
    state = batches.get(tenant, batch_id)
    response = Response(_answer(state, settings).model_dump_json(), media_type="application/json")
    if not state.is_over:
        response.headers["Retry-After"] = "5"
    return cacheable(response, if_none_match)


@router.get(
    "/{batch_id}/items",
    summary="List the items of a batch",
    responses=problems(*_FAILURES, errors.InvalidInput, errors.BrokerUnavailable),
)
def list_items(
    batch_id: str,
    batches: BatchServiceDep,
    tenant: Tenant,
    status: Annotated[schemas.ItemStatus | None, Query(description="Only items with this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[str, _cursor("^[0-9]{0,5}$")] = "",
) -> schemas.BatchItemPage:
    """The items in their order, a page at a time: how each stands, and what is wrong with it."""
    state = batches.get(tenant, batch_id)
    only = ItemStatus(status) if status else None
    indices = batches.pick(state, status=only, start=int(cursor or 0), limit=limit + 1)
    items = [_item_answer(each, state) for each in batches.items(state, indices[:limit])]
    return schemas.BatchItemPage(items=items, next_cursor=str(indices[limit]) if len(indices) > limit else None)


@router.get(
    "/{batch_id}/results",
    summary="Download the results of a batch",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A BatchItemAnswer in each line, in the order of the items.",
            "content": {kind: {"schema": {"type": "string"}, "example": _RESULT} for kind in RESULT_KINDS},
        },
        **problems(*_FAILURES, errors.BrokerUnavailable),
    },
)
def read_results(
    batch_id: str,
    batches: BatchServiceDep,
    tenant: Tenant,
    accept: Annotated[str, Header(description="`text/plain`, for clients that read no other lines.")] = "*/*",
) -> StreamingResponse:
    """A line for each item as it stands now, also before the batch is over. Pictures of deleted subjects are gone."""
    state = batches.get(tenant, batch_id)
    items = batches.items(state, range(state.batch.total))
    first = next(items, None)  # what cannot be read at all is a problem, not a stream that ends
    headers = {"Content-Disposition": f'attachment; filename="{batch_id}.jsonl"', "Cache-Control": "private, no-store"}

    def lines() -> Iterator[str]:
        if first:
            yield _line(first, state)
        for item in items:
            yield _line(item, state)

    return StreamingResponse(lines(), headers=headers, media_type=preferred(accept, RESULT_KINDS))


@router.post(
    "/{batch_id}/cancel",
    status_code=202,
    summary="Cancel a batch",
    responses=problems(*_FAILURES, errors.BatchOver),
)
def cancel_batch(batch_id: str, batches: BatchServiceDep, tenant: Tenant, settings: SettingsDep) -> schemas.BatchAnswer:
    """Nothing more of it is begun, and what is running stops within seconds; pictures that are made stay."""
    return _answer(batches.cancel(tenant, batch_id), settings)


@router.delete("/{batch_id}", status_code=202, summary="Delete a batch", responses=problems(*_FAILURES))
def delete_batch(batch_id: str, batches: BatchServiceDep, tenant: Tenant) -> schemas.BatchDeleted:
    """Erases its prompts, its jobs and their pictures, also while it is being done. From then on it is 404."""
    batches.delete(tenant, batch_id)
    return schemas.BatchDeleted(batch_id=batch_id, deleted_at=datetime.fromtimestamp(time.time(), UTC))


async def _fill(request: Request, tenant: str, upload: BatchUpload, model: Model) -> None:
    if media_type(request) in KINDS:
        await idempotent_once_read(request, tenant, await add_lines(request, upload, model))
        return
    await to_thread.run_sync(_add_all, upload, await request.body(), model)


def _answered(response: Response, made: BatchState, settings: Settings) -> schemas.BatchAnswer:
    response.headers["Location"] = f"/v1/batches/{made.batch.id}"
    return _answer(made, settings)


def _add_all(upload: BatchUpload, body: bytes, model: Model) -> None:
    try:
        parsed = schemas.BatchRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_fields(error.errors()) from None
    for item in parsed.generations():
        add_item(upload, item, model)


def _answer(state: BatchState, settings: Settings) -> schemas.BatchAnswer:
    batch, url = state.batch, link(f"/v1/batches/{state.batch.id}")
    is_over = state.is_over
    kept = settings.batch_kept_days * 24 * 3600.0
    counts = {status.value: count for status, count in state.items.counts.items()}
    cancel = None if is_over or state.is_canceled else f"{url}/cancel"
    return schemas.BatchAnswer(
        id=batch.id,
        livemode=not is_test(batch.tenant),
        status=state.status,
        created_at=datetime.fromtimestamp(batch.created_at, UTC),
        finished_at=when(state.items.finished_at),
        expires_at=when(batch.created_at + kept if kept else None),
        counts=schemas.BatchCounts(total=batch.total, **counts),
        links=schemas.BatchLinks(self=url, items=f"{url}/items", results=f"{url}/results", cancel=cancel),
    )


def _item_answer(state: ItemWithJob, of: BatchState) -> schemas.BatchItemAnswer:
    item, job, error = state.item, state.job, state.error
    result = job.result if job else None
    fields = error.fields if isinstance(error, ItemError) else ()
    failure = error and schemas.ItemFailure(
        code=error.code,
        detail=error.detail,
        errors=[FieldProblem(field=field, message=message) for field, message in fields] or None,
    )
    return schemas.BatchItemAnswer(
        index=item.index,
        line=item.line,
        custom_id=item.custom_id,
        status=state.status,
        job_id=of.batch.job_id(item.index) if job else None,
        prompt=item.request.prompt if item.request else None,
        seed=item.request.seed if item.request else None,
        images=[image_answer(image) for image in result.images] if isinstance(result, GenerateResult) else None,
        error=failure,
        warnings=[schemas.RequestWarning(**warning.model_dump()) for warning in item.warnings],
    )


def _line(state: ItemWithJob, of: BatchState) -> str:
    return f"{_item_answer(state, of).model_dump_json()}\n"
