"""Images: the pictures that jobs made."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from PIL import ExifTags, Image, PngImagePlugin

from api.server.auth import Tenant
from api.server.dependencies import JobServiceDep
from api.server.errors import COMMON, problems
from api.server.responses import NOT_MODIFIED, cacheable, picture_answer, preferred
from core import errors
from core.jobs.pictures import PictureFilter
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/images", tags=["images"], responses=COMMON)


def _id(prefix: str) -> str:
    return f"^{prefix}_[0-9a-z]{{25}}$"


KINDS = ("image/png", "application/octet-stream", "image/webp")
"""What a picture is sent as. The second is PNG too: clients made from the OpenAPI document read no other files."""
_PICTURE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "",
    summary="List pictures",
    responses=problems(errors.InvalidInput, errors.BrokerUnavailable, errors.StoreUnavailable),
)
def list_images(
    jobs: JobServiceDep,
    tenant: Tenant,
    subject_id: Annotated[str | None, Query(description="Only pictures of this subject.", pattern=_id("sub"))] = None,
    job_id: Annotated[str | None, Query(description="Only pictures of this job.", pattern=_id("job"))] = None,
    prompt: Annotated[
        str | None,
        Query(min_length=1, max_length=1000, description="Only pictures whose prompt has this in it, in any case."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[
        str, Query(description="The `next_cursor` of the page before.", pattern="^(img_[0-9a-z]{25}-[0-9]{1,4})?$")
    ] = "",
) -> schemas.PicturePage:
    """The pictures that generations have made, newest first, with what each was made with. Previews are not here.

    A filtered page can be short or even empty and still have a `next_cursor`.
    """
    page = jobs.pictures(tenant, PictureFilter(subject_id, job_id, prompt), limit=limit, after=cursor)
    return schemas.PicturePage(images=[picture_answer(each) for each in page.pictures], next_cursor=page.after)


@router.get(
    "/{image_id}",
    summary="Download a picture",
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "headers": {"ETag": {"description": "The picture's hash.", "schema": {"type": "string"}}},
            "content": dict.fromkeys(KINDS, _PICTURE),
        },
        **NOT_MODIFIED,
        **problems(errors.ImageNotFound, errors.InvalidInput, errors.BrokerUnavailable, errors.StoreUnavailable),
    },
)
def read_image(
    image_id: str,
    jobs: JobServiceDep,
    tenant: Tenant,
    accept: Annotated[
        str,
        Header(description="`image/webp` for WebP without loss; PNG otherwise, also as `application/octet-stream`."),
    ] = "*/*",
    if_none_match: Annotated[str | None, Header()] = None,
    size: Annotated[
        int | None, Query(ge=16, le=1024, description="Its longer side is at most this: a thumbnail.")
    ] = None,
) -> Response:
    """PNG, or WebP where the caller asks for it by name. Both hold the same pixels."""
    data, kind = jobs.image(tenant, image_id), preferred(accept, KINDS)
    if size:
        data = thumbnail(data, size)
    extension = "png"
    if kind == "image/webp":
        data, extension = to_webp(data), "webp"
    headers = {"Vary": "Accept", "Content-Disposition": f'inline; filename="{image_id}.{extension}"'}
    return cacheable(Response(data, headers=headers, media_type=kind), if_none_match)


def to_webp(png: bytes) -> bytes:
    """The same pixels as WebP, with what the PNG says of itself, a line each, in EXIF and XMP."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        said = {name: value for name, value in image.info.items() if isinstance(value, str)}
        xmp = said.pop("XML:com.adobe.xmp", "")
        exif = Image.Exif()
        # As bytes, since prompts need not be ASCII.
        exif[ExifTags.Base.ImageDescription] = "\n".join(f"{name}: {text}" for name, text in said.items()).encode()
        image.save(out, format="WEBP", lossless=True, exif=exif, xmp=xmp.encode())
    return out.getvalue()


def thumbnail(png: bytes, size: int) -> bytes:
    """The picture with its longer side at most `size`, and what it says of itself; a smaller one as it is."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if max(image.size) <= size:
            return png
        notes = PngImagePlugin.PngInfo()
        for name, value in image.info.items():
            if isinstance(name, str) and isinstance(value, str):
                notes.add_itxt(name, value)
        image.thumbnail((size, size))
        image.save(out, format="PNG", pnginfo=notes)
    return out.getvalue()
