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
from api.server.caching import NOT_MODIFIED, cacheable
from api.server.dependencies import JobService, RequestIdOf, ServiceSettings
from api.server.errors import COMMON, MalformedRequest, invalid_fields, problems
from api.server.idempotency import Idempotent, idempotent_once_read
from api.server.jsonl import KINDS, BatchBody, add_item, add_lines, media_type
from api.server.requests import GENERATION_ERRORS
from api.server.responses import image_answer, when
from core import errors
from core.batches.service import Batches, ItemError, ItemStanding, Standing
from core.batches.upload import BatchUpload
from core.records import GenerateResult, ItemStatus
from core.settings import Settings
from hyperdreambooth import schemas
from hyperdreambooth.schemas import SUBJECT_ID, FieldProblem

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=COMMON)

MAX_SEND_SECONDS = 900.0
"""How long a batch may take to be sent."""
_LINES = '{"custom_id": "ada-1", "subject_id": "' + SUBJECT_ID + '", "prompt": "a pencil sketch of a [V] face"}\n'
_RESULT = schemas.BatchItemAnswer(
    index=0, line=1, custom_id="ada-1", status=schemas.ItemStatus.CANCELED, job_id=None, seed=7, images=None
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
    job_service: JobService,
    tenant: Tenant,
    settings: ServiceSettings,
    request_id: RequestIdOf,
) -> schemas.BatchAnswer:
    """Up to 10,000 generations: every prompt with every subject as JSON, or a generation in each line as JSONL.

    An item whose line is wrong, or whose subject is not there or not ready, is `invalid`, and the others are done; only
    when nothing can be done the request is refused with what is wrong with the first item. A JSON body that does not
    fit its schema is refused as a whole. Items wait until nothing else does: they hold up nobody's generations.
    """
    if media_type(request) not in ("application/json", *KINDS):
        raise errors.UnsupportedMediaType(f"Send Content-Type: application/json, or {KINDS[0]} with an item a line.")
    open_draft = partial(BatchUpload, job_service, tenant, open_limit=settings.batch_limit, request_id=request_id)
    draft = await to_thread.run_sync(open_draft)
    try:
        with anyio.fail_after(MAX_SEND_SECONDS):
            await _fill(request, tenant, draft)
        made = await to_thread.run_sync(draft.commit)
    except BaseException as error:
        with CancelScope(shield=True):
            await to_thread.run_sync(draft.discard)
        if isinstance(error, TimeoutError):
            raise MalformedRequest(f"The body took more than {MAX_SEND_SECONDS:.0f} s to come in.") from None
        raise
    response.headers["Location"] = f"/v1/batches/{made.batch.id}"
    return _answer(made, settings)


@router.get("", summary="List batches", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
def list_batches(
    job_service: JobService,
    tenant: Tenant,
    settings: ServiceSettings,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[str, _cursor(r"^(bat_[0-9a-z]{25})?$")] = "",
) -> schemas.BatchPage:
    """The batches, newest first, a page at a time."""
    found, after = Batches(job_service).page(tenant, limit=limit, after=cursor)
    return schemas.BatchPage(batches=[_answer(standing, settings) for standing in found], next_cursor=after)


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
    job_service: JobService,
    tenant: Tenant,
    settings: ServiceSettings,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How many of its items stand how. Poll with `If-None-Match` and `Retry-After`."""
    standing = Batches(job_service).read(tenant, batch_id)
    response = Response(_answer(standing, settings).model_dump_json(), media_type="application/json")
    if standing.tally.finished_at is None:
        response.headers["Retry-After"] = "5"
    return cacheable(response, if_none_match)


@router.get(
    "/{batch_id}/items",
    summary="List the items of a batch",
    responses=problems(*_FAILURES, errors.InvalidInput, errors.BrokerUnavailable),
)
def list_items(
    batch_id: str,
    job_service: JobService,
    tenant: Tenant,
    status: Annotated[schemas.ItemStatus | None, Query(description="Only items with this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[str, _cursor("^[0-9]{0,5}$")] = "",
) -> schemas.BatchItemPage:
    """The items in their order, a page at a time: how each stands, and what is wrong with it."""
    batches = Batches(job_service)
    standing = batches.read(tenant, batch_id)
    only = ItemStatus(status) if status else None
    indices = batches.pick(standing, status=only, start=int(cursor or 0), limit=limit + 1)
    items = [_item_answer(each, standing) for each in batches.items(standing, indices[:limit])]
    return schemas.BatchItemPage(items=items, next_cursor=str(indices[limit]) if len(indices) > limit else None)


@router.get(
    "/{batch_id}/results",
    summary="Download the results of a batch",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A BatchItemAnswer in each line, in the order of the items.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": _RESULT}},
        },
        **problems(*_FAILURES, errors.BrokerUnavailable),
    },
)
def read_results(batch_id: str, job_service: JobService, tenant: Tenant) -> StreamingResponse:
    """A line for each item as it stands now, also before the batch is over. Pictures of deleted subjects are gone."""
    batches = Batches(job_service)
    standing = batches.read(tenant, batch_id)
    items = batches.items(standing, range(standing.batch.total))
    first = next(items, None)  # what cannot be read at all is a problem, not a stream that ends
    headers = {"Content-Disposition": f'attachment; filename="{batch_id}.jsonl"', "Cache-Control": "private, no-store"}

    def lines() -> Iterator[str]:
        if first:
            yield _line(first, standing)
        for item in items:
            yield _line(item, standing)

    return StreamingResponse(lines(), headers=headers, media_type="application/x-ndjson")


@router.post(
    "/{batch_id}/cancel",
    status_code=202,
    summary="Cancel a batch",
    responses=problems(*_FAILURES, errors.BatchOver),
)
def cancel_batch(
    batch_id: str, job_service: JobService, tenant: Tenant, settings: ServiceSettings
) -> schemas.BatchAnswer:
    """Nothing more of it is begun, and what is running stops within seconds; pictures that are made stay."""
    return _answer(Batches(job_service).cancel(tenant, batch_id), settings)


@router.delete("/{batch_id}", status_code=202, summary="Delete a batch", responses=problems(*_FAILURES))
def delete_batch(batch_id: str, job_service: JobService, tenant: Tenant) -> schemas.BatchDeleted:
    """Erases its prompts, its jobs and their pictures, also while it is being done. From then on it is 404."""
    Batches(job_service).delete(tenant, batch_id)
    return schemas.BatchDeleted(batch_id=batch_id, deleted_at=datetime.fromtimestamp(time.time(), UTC))


async def _fill(request: Request, tenant: str, draft: BatchUpload) -> None:
    if media_type(request) in KINDS:
        await idempotent_once_read(request, tenant, await add_lines(request, draft))
        return
    await to_thread.run_sync(_add_all, draft, await request.body())


def _add_all(draft: BatchUpload, body: bytes) -> None:
    try:
        asked = schemas.BatchRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_fields(error.errors()) from None
    for item in asked.generations():
        add_item(draft, item)


def _answer(standing: Standing, settings: Settings) -> schemas.BatchAnswer:
    batch, url = standing.batch, f"/v1/batches/{standing.batch.id}"
    is_over = standing.tally.finished_at is not None
    kept = settings.batch_kept_days * 24 * 3600.0
    counts = {status.value: count for status, count in standing.tally.counts.items()}
    cancel = None if is_over or standing.is_canceled else f"{url}/cancel"
    return schemas.BatchAnswer(
        id=batch.id,
        status=standing.status,
        created_at=datetime.fromtimestamp(batch.created_at, UTC),
        finished_at=when(standing.tally.finished_at),
        expires_at=when(batch.created_at + kept if kept else None),
        counts=schemas.BatchCounts(total=batch.total, **counts),
        links=schemas.BatchLinks(self=url, items=f"{url}/items", results=f"{url}/results", cancel=cancel),
    )


def _item_answer(standing: ItemStanding, of: Standing) -> schemas.BatchItemAnswer:
    item, job, error = standing.item, standing.job, standing.error
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
        status=standing.status,
        job_id=of.batch.job_id(item.index) if job else None,
        seed=item.request.seed if item.request else None,
        images=[image_answer(image) for image in result.images] if isinstance(result, GenerateResult) else None,
        error=failure,
    )


def _line(standing: ItemStanding, of: Standing) -> str:
    return f"{_item_answer(standing, of).model_dump_json()}\n"
