"""The header of a WebP: sizes, frames and metadata."""

from __future__ import annotations

from collections.abc import Iterator

from api.server.decoding.header import CUT_SHORT, Header, broken, check_size
from core.errors import ImageAnimated, UploadRefused

MAX_CHUNKS = 1000
"""A photo has at most six."""


def inspect(data: bytes) -> Header:
    """What the chunks of a WebP say.

    Raises ImageBroken, ImageTooManyPixels, ImageAnimated, and UploadRefused for more chunks than photos have.
    """
    size, frames, metadata = (0, 0), 0, {b"EXIF": b"", b"XMP ": b"", b"ICCP": b""}
    for kind, content in _chunks(data):
        if kind in metadata:
            metadata[kind] = metadata[kind] or content
        frames += kind == b"ANMF"
        if found := _size(kind, content):
            check_size(*found)
            size = max(size, found)
    if frames > 1:
        raise ImageAnimated("Send a single picture, not an animation.", field="photo")
    exif = metadata[b"EXIF"].removeprefix(b"Exif\0\0")
    return Header(*size, data, exif=exif, xmp=metadata[b"XMP "], profile=metadata[b"ICCP"])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each, as far as the file says that it goes."""
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) + 1:  # some programs leave out the last padding byte, and count it
        raise broken(CUT_SHORT)
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data):
            raise broken(CUT_SHORT)
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise UploadRefused(f"This WebP has more than {MAX_CHUNKS} chunks: export the photo again.", field="photo")


def _size(kind: bytes, content: bytes) -> tuple[int, int] | None:
    """Width and height, of the chunks that say so: the canvas, a picture with loss or without, a frame."""
    if kind == b"VP8X" and len(content) >= 10:
        return _number(content[4:7]) + 1, _number(content[7:10]) + 1
    if kind == b"VP8 " and len(content) >= 10:
        return _number(content[6:8]) & 0x3FFF, _number(content[8:10]) & 0x3FFF
    if kind == b"VP8L" and len(content) >= 5:
        bits = _number(content[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"ANMF" and len(content) >= 12:
        return _number(content[6:9]) + 1, _number(content[9:12]) + 1
    return None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
