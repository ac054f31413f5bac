"""What kind of file an upload is, by its first bytes: names and declared types lie."""

from __future__ import annotations

import re
from enum import Enum, auto

from core.errors import UnsupportedMediaType


class PhotoFormat(Enum):
    """The formats that are read, when their decoder is installed."""

    JPEG = auto()
    PNG = auto()
    WEBP = auto()
    AVIF = auto()
    HEIC = auto()


_READ = (
    (re.compile(rb"\xff\xd8\xff"), PhotoFormat.JPEG),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PhotoFormat.PNG),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), PhotoFormat.WEBP),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), PhotoFormat.AVIF),
    (re.compile(rb"....ftyp(he[iv][cmsx]|m[is]f1)", re.DOTALL), PhotoFormat.HEIC),
)

_EXPORT = "export it as JPEG and send that"
_REFUSED = (
    (rb"GIF8[79]a", "a GIF", "send the photo that it was made from"),
    (rb"BM", "a BMP", _EXPORT),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF or a camera's raw file", _EXPORT),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL", _EXPORT),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000", _EXPORT),
    (rb"....ftypcrx |IIRO|IIU\0|FUJIFILM|\0MRM", "a camera's raw file", _EXPORT),
    (rb"....ftyp(qt|mp4|iso|M4V|3gp|mmp4)|\x1aE\xdf\xa3|RIFF....AVI ", "a video", "send a still picture of it"),
    (rb"8BPS", "a Photoshop document", _EXPORT),
    (rb"\0\0[\x01\x02]\0", "an icon", "send a photo"),
    (rb"%PDF-", "a PDF", "send the photo itself"),
    (rb"PK\x03\x04", "a ZIP archive", "send the photos in it, one field each"),
    (rb"\s*<", "HTML, SVG or XML", "send a photo"),
)
_REFUSED_PATTERNS = tuple((re.compile(pattern, re.DOTALL), name, advice) for pattern, name, advice in _REFUSED)


def format_of(data: bytes) -> PhotoFormat:
    """The format of a photo. Raises UnsupportedMediaType, which names what it is when that is known."""
    start = data[:32]
    for pattern, found in _READ:
        if pattern.match(start):
            return found
    for pattern, name, advice in _REFUSED_PATTERNS:
        if pattern.match(start):
            raise unsupported(f"This is {name}: {advice}.")
    raise unsupported("This is no picture that is known here: send a JPEG, PNG or WebP.")


def unsupported(detail: str) -> UnsupportedMediaType:
    """The refusal of a file that is not read."""
    return UnsupportedMediaType(detail, field="photo")
