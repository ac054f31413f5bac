"""Weights: a person's file, for this service and for other programs."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response

from api.server.auth import Tenant
from api.server.caching import NOT_MODIFIED, cacheable
from api.server.dependencies import JobService
from api.server.errors import COMMON, problems
from core import errors
from core.hyperdreambooth.formats import exports, lidb_file
from core.records import WeightsStage
from core.storage import Store
from core.subjects import export_layouts as layouts

router = APIRouter(prefix="/v1/subjects", tags=["subjects"], responses=COMMON)

_ENDINGS = {"lidb": "lidb", "peft": "peft.safetensors", "kohya": "kohya.safetensors"}


@router.get(
    "/{subject_id}/weights",
    summary="Download a subject's weights",
    response_class=Response,
    responses={
        200: {
            "description": "A safetensors file with metadata that describes itself.",
            "headers": {
                "ETag": {"description": "The file's hash.", "schema": {"type": "string"}},
                "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
            },
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **NOT_MODIFIED,
        **problems(
            errors.SubjectNotFound,
            errors.SubjectNotReady,
            errors.WeightsFormat,
            errors.WeightsMismatch,
            errors.InvalidInput,
            errors.StoreUnavailable,
        ),
    },
)
async def read_weights(
    subject_id: str,
    request: Request,
    job_service: JobService,
    tenant: Tenant,
    stage: Annotated[
        WeightsStage, Query(description="After finetuning, or as first predicted.")
    ] = WeightsStage.REFINED,
    format: Annotated[  # noqa: A002
        Literal["lidb", "peft", "kohya"],
        Query(
            description="`lidb`: what this service keeps, about 100 KB. `peft`: a LoRA for diffusers. `kohya`: a LoRA "
            "for A1111 and ComfyUI."
        ),
    ] = "lidb",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The personal change alone. Biometric data: keep it as safe as the photo.

    `peft` and `kohya` are plain LoRA files of a few MB, made of the same weights on the spot; the metadata names the
    base model and the words that stand for the person.
    """
    data = await to_thread.run_sync(job_service.weights, tenant, subject_id, stage)
    if format != "lidb":
        make = partial(_export, job_service.archive.store, data, format)
        data = await to_thread.run_sync(make, limiter=request.app.state.exporters)
    headers = {"Content-Disposition": f'attachment; filename="{subject_id}.{stage}.{_ENDINGS[format]}"'}
    return cacheable(Response(data, headers=headers, media_type="application/octet-stream"), if_none_match)


def _export(store: Store, data: bytes, file_format: exports.ExportFormat) -> bytes:
    file = lidb_file.read(data)
    layout = layouts.look_up(store, file.metadata.fingerprint, file.metadata.basis)
    return exports.export(file, exports.Layout.from_json(layout), file_format)
