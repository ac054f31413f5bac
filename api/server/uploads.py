"""Uploaded photos: read within limits while they arrive, and reduced to the face as pixels.

Decoding has a folder of its own, `decoding`. The crop is a new picture, so no byte of the upload (EXIF, GPS, a second
file behind the first one) can reach the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.server.decoding.decoder import MAX_PHOTO_BYTES
from api.server.errors import InvalidFields, MalformedRequest
from core.errors import UnsupportedMediaType, UploadTooLarge
from hyperdreambooth.schemas import FieldProblem

MAX_PHOTOS = 8
MAX_FIELD_BYTES = 16 * 1024


@dataclass(frozen=True)
class Form:
    """A multipart form: the bytes of the files called `photo`, and the text of the other fields that are not empty."""

    photos: tuple[bytes, ...]
    fields: dict[str, str]


class _FormParser(MultiPartParser):
    """Stops at a photo that is too large, and keeps photos in memory: the framework's would go to a temporary file."""

    spool_max_size = MAX_PHOTO_BYTES + 1

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is not None:
            waiting = sum(len(chunk) for other, chunk in self._file_parts_to_write if other is part)
            if (part.file.size or 0) + waiting + end - start > MAX_PHOTO_BYTES:
                raise UploadTooLarge(f"A photo has at most {MAX_PHOTO_BYTES // 2**20} MB.", field="photo")
        super().on_part_data(data, start, end)


async def read_form(request: Request) -> Form:
    """The multipart form of a request, held in memory.

    Raises UnsupportedMediaType for another kind of body, UploadTooLarge while a photo that is too large comes in,
    MalformedRequest when it is no form, InvalidFields for doubled fields and for files that are not called `photo`.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send multipart/form-data with a file called photo.")
    parser = _FormParser(
        request.headers, request.stream(), max_files=MAX_PHOTOS, max_fields=16, max_part_size=MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedRequest(error.message) from None
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None
    try:
        photos, fields = [], {}
        for name, value in form.multi_items():
            if _is_empty(value):
                continue
            if isinstance(value, UploadFile) != (name == "photo"):
                raise _wrong(name, "Only photo is a file, and photo is always a file.")
            if isinstance(value, UploadFile):
                photos.append(await value.read())
            elif name in fields:
                raise _wrong(name, "Send this field once.")
            else:
                fields[name] = value
    finally:
        await form.close()
    return Form(tuple(photos), fields)


def _is_empty(value: UploadFile | str) -> bool:
    """Whether it is what a browser sends for a field that was left empty, or for a file that was not chosen."""
    return not (value.filename or value.size) if isinstance(value, UploadFile) else not value


def _wrong(field: str, message: str) -> InvalidFields:
    return InvalidFields([FieldProblem(field=field, message=message)])


@contextlib.asynccontextmanager
async def disconnection(request: Request) -> AsyncIterator[threading.Event]:
    """An event, for threads, that is set when the sender hangs up. The request's body has been read."""
    gone = threading.Event()
    watching = asyncio.create_task(_watch(request, gone))
    try:
        yield gone
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(request: Request, gone: threading.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()
