"""Uploaded photos: read within limits, decoded once, and reduced to pixels.

The order matters: size while it arrives, type by content, number of frames and pixels by the header, and only then the
decoder. The result is a new RGB picture, so no byte of the upload (EXIF, GPS, a second file behind the first one) can
reach the store.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.server.errors import InvalidFields, MalformedRequest
from core.errors import (
    HyperDreamBoothError,
    ImageAnimated,
    ImageBroken,
    ImageTooManyPixels,
    PhotoRefused,
    UnsupportedMediaType,
    UploadTooLarge,
)
from hyperdreambooth.schemas import FieldProblem

if TYPE_CHECKING:
    from core.hyperdreambooth.faces.alignment import Face

MAX_PHOTO_BYTES = 10 * 1024 * 1024
MAX_PIXELS = 25_000_000
MAX_PHOTOS = 8
MAX_FIELD_BYTES = 16 * 1024
CROP_SIZES = (64, 512)
"""Smallest and largest side of the stored crop, in pixels."""
_STRIP = 128
"""Rows that are made RGB at a time."""
EYES_APART = 0.246
"""Between the eyes in an aligned crop, as a fraction of its side."""

FaceFinder = Callable[[Image.Image], "Face"]
"""`core.hyperdreambooth.faces.quality.find_face`, or a test's fake."""

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""


@dataclass(frozen=True)
class Form:
    """A multipart form: the bytes of the files called `photo`, and the text of the other fields."""

    photos: tuple[bytes, ...]
    fields: dict[str, str]


class _Webp(WebPImageFile):
    """Frees the decoder and its two canvases (8 bytes a pixel) before the picture's own memory is allocated."""

    def load_prepare(self) -> None:
        self._decoder = None
        super().load_prepare()


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


def _wrong(field: str, message: str) -> InvalidFields:
    return InvalidFields([FieldProblem(field=field, message=message)])


def sniff(data: bytes) -> type[ImageFile.ImageFile]:
    """The decoder for a file, by its first bytes: names and declared types lie. Raises UnsupportedMediaType."""
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _Webp
    raise UnsupportedMediaType("Send a JPEG, PNG or WebP picture.", field="photo")


def decode(data: bytes) -> Image.Image:
    """A photo's bytes to an upright RGB picture without metadata.

    Raises UploadTooLarge, UnsupportedMediaType, ImageTooManyPixels, ImageAnimated, ImageBroken (also when cut short).
    """
    if len(data) > MAX_PHOTO_BYTES:
        raise UploadTooLarge(f"A photo has at most {MAX_PHOTO_BYTES // 2**20} MB.", field="photo")
    kind = sniff(data)
    try:
        # Not Image.open: it would hand a phone's JPEG with a second picture behind the first to another decoder.
        with kind(io.BytesIO(data)) as image:
            _check_header(image)
            turn = _TURNED.get(_orientation(image))
            image.load()
            pixels = _flatten(image)
            image.close()  # what is turned next needs the memory
    except HyperDreamBoothError:
        raise
    except MemoryError:
        raise ImageTooManyPixels(field="photo") from None
    except Exception as error:  # the decoders raise a dozen kinds over hostile files; none may become a 500
        raise ImageBroken("The file is damaged or cut short: export the photo again.", field="photo") from error
    return pixels.transpose(turn) if turn is not None else pixels


def _check_header(image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageTooManyPixels(
            f"{width} x {height} is more than {MAX_PIXELS // 1_000_000} megapixels: send a smaller one.", field="photo"
        )
    if getattr(image, "is_animated", False):
        raise ImageAnimated("Send a single picture, not an animation.", field="photo")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  (EXIF comes from the sender; with broken EXIF the picture may still be fine)
        return 1


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to a fresh RGB picture, strip by strip: a large picture is in memory twice, never four times."""
    fresh = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _STRIP):
        strip = _in_colour(image.crop((0, top, image.width, min(top + _STRIP, image.height))))
        fresh.paste(strip, (0, top), strip if strip.mode == "RGBA" else None)
    return fresh


def _in_colour(strip: Image.Image) -> Image.Image:
    """A strip as RGB, or as RGBA where something is transparent; 16-bit grey is scaled to 8 bits."""
    if strip.mode.startswith("I"):
        strip = Image.fromarray((np.asarray(strip).astype(np.uint32) >> 8).astype(np.uint8))
    return strip.convert("RGBA" if strip.has_transparency_data else "RGB")


def face_crop(data: bytes, find_face: FaceFinder) -> bytes:
    """The aligned face in a photo as PNG, its side within CROP_SIZES: all that is stored of the photo.

    Raises what `decode` and `find_face` raise.
    """
    try:
        face = find_face(decode(data))
    except PhotoRefused as error:
        error.field = error.field or "photo"
        raise
    smallest, largest = CROP_SIZES
    crop = face.aligned(round(min(largest, max(smallest, face.eye_distance / EYES_APART))))
    out = io.BytesIO()
    Image.fromarray(np.asarray(crop)).save(out, format="PNG")
    return out.getvalue()
