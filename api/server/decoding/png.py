"""The header of a PNG: its size and metadata; and the picture alone, for the decoder.

Text, times, thumbnails and whatever else may stand in a PNG is left out, so that a bomb in it never unfolds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from api.server.decoding.code_points import profile_for
from api.server.decoding.header import CUT_SHORT, MAX_PROFILE_BYTES, Header, broken
from core.errors import ImageAnimated, UploadRefused

MAX_CHUNKS = 20_000
"""A photo of ten megabytes has 1,280 of libpng's size."""
MAX_TEXT_BYTES = 1024 * 1024

_SIGNATURE = 8
_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_XMP, _RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
"""The names of the texts in which some programs keep the orientation."""


class _Chunk(NamedTuple):
    kind: bytes
    content: bytes
    start: int
    end: int


def inspect(data: bytes) -> Header:
    """What the chunks of a PNG say. What follows its end is left out.

    Raises ImageBroken, ImageTooManyPixels, ImageAnimated, and UploadRefused for more chunks than photos have.
    """
    size, depth, parts, kept = (0, 0), 8, _Parts(), [data[:_SIGNATURE]]
    for chunk in _chunks(data):
        if chunk.kind == b"IHDR" and len(chunk.content) == 13 and len(kept) == 1:
            size = (int.from_bytes(chunk.content[:4]), int.from_bytes(chunk.content[4:8]))
            depth = chunk.content[8]
        elif len(kept) == 1:
            raise broken("The PNG does not begin with its header: export the photo again.")
        # A clear colour of 16 bits a channel would be compared with pixels of 8.
        if chunk.kind in _PICTURE and (chunk.kind != b"tRNS" or depth <= 8):
            kept.append(data[chunk.start : chunk.end])
        else:
            parts.add(chunk)
    return Header(*size, b"".join(kept), exif=parts.exif, xmp=parts.xmp, profile=parts.profile)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """All of them, to IEND; a file that ends between two chunks of the picture is for the decoder to refuse."""
    at = _SIGNATURE
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if end > len(data):
            raise broken(CUT_SHORT)
        yield _Chunk(kind, data[at + 8 : end - 4] if kind != b"IDAT" else b"", at, end)
        if kind == b"IEND":
            return
        at = end
    raise UploadRefused(f"This PNG has more than {MAX_CHUNKS} chunks: export the photo again.", field="photo")


class _Parts:
    """The metadata that changes the picture: orientation and colours."""

    def __init__(self) -> None:
        self.exif = self.xmp = self.profile = b""

    def add(self, chunk: _Chunk) -> None:
        kind, content = chunk.kind, chunk.content
        if kind == b"acTL" and int.from_bytes(content[:4]) > 1:
            raise ImageAnimated("Send a single picture, not an animation.", field="photo")
        if kind == b"eXIf":
            self.exif = content
        elif kind == b"cICP":
            self.profile = self.profile or profile_for(*content[:2].ljust(2, b"\0"))
        elif kind == b"iCCP":
            self.profile = self.profile or _unfold(content.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        elif kind in _TEXTS:
            self._text(kind, *content.partition(b"\0")[::2])

    def _text(self, kind: bytes, name: bytes, content: bytes) -> None:
        if name == _XMP and kind == b"iTXt":
            flags, _, text = content[:2], *content[2:].partition(b"\0")[1:]
            text = text.partition(b"\0")[2]
            self.xmp = _unfold(text, MAX_TEXT_BYTES) if flags[:1] == b"\1" else text
        elif name == _RAW_EXIF and kind != b"iTXt" and not self.exif:
            text = _unfold(content[1:], MAX_TEXT_BYTES) if kind == b"zTXt" else content
            self.exif = _from_hex(text).removeprefix(b"Exif\0\0")


def _unfold(data: bytes, most: int) -> bytes:
    """Inflate; nothing when it is damaged or more than `most` bytes come out."""
    inflate = zlib.decompressobj()
    try:
        out = inflate.decompress(data, most)
    except zlib.error:
        return b""
    return out if inflate.eof else b""


def _from_hex(text: bytes) -> bytes:
    """ImageMagick's way to keep bytes in a text: an empty line, their name, their number, and hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text[:MAX_TEXT_BYTES].decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""
