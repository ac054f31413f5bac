"""Images: the pictures that jobs made."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Header, Response
from PIL import ExifTags, Image

from api.server.auth import Tenant
from api.server.caching import NOT_MODIFIED, cacheable
from api.server.dependencies import JobService
from api.server.errors import COMMON, problems
from core import errors

router = APIRouter(prefix="/v1/images", tags=["images"], responses=COMMON)

_PICTURE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{image_id}",
    summary="Download a picture",
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "headers": {"ETag": {"description": "The picture's hash.", "schema": {"type": "string"}}},
            "content": {"image/png": _PICTURE, "image/webp": _PICTURE},
        },
        **NOT_MODIFIED,
        **problems(errors.ImageNotFound, errors.BrokerUnavailable, errors.StoreUnavailable),
    },
)
def read_image(
    image_id: str,
    job_service: JobService,
    tenant: Tenant,
    accept: Annotated[str, Header(description="`image/webp` for WebP without loss; PNG otherwise.")] = "*/*",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """PNG, or WebP where the caller asks for it by name. Both hold the same pixels."""
    data, kind = job_service.image(tenant, image_id), "image/png"
    if prefers_webp(accept):
        data, kind = to_webp(data), "image/webp"
    extension = kind.removeprefix("image/")
    headers = {"Vary": "Accept", "Content-Disposition": f'inline; filename="{image_id}.{extension}"'}
    return cacheable(Response(data, headers=headers, media_type=kind), if_none_match)


def prefers_webp(accept: str) -> bool:
    """Whether an Accept header names WebP, and does not like PNG better."""
    weights = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights[kind] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights.get("image/webp", 0.0) > 0 and weights["image/webp"] >= weights.get("image/png", 0.0)


def to_webp(png: bytes) -> bytes:
    """The same pixels as WebP, with what the PNG says of itself (prompt, seed, made with AI) in EXIF and XMP."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        said = {name: value for name, value in image.info.items() if isinstance(value, str)}
        xmp = said.pop("XML:com.adobe.xmp", "")
        exif = Image.Exif()
        # As bytes, since prompts need not be ASCII.
        exif[ExifTags.Base.ImageDescription] = "\n".join(f"{name}: {text}" for name, text in said.items()).encode()
        image.save(out, format="WEBP", lossless=True, exif=exif, xmp=xmp.encode())
    return out.getvalue()


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
