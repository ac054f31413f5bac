"""How a photo is to be turned: read from the metadata's bytes, a few of them, whatever else is in there."""

from __future__ import annotations

import re

from PIL import Image

_TAG = 0x0112
_MAX_ENTRIES = 512
_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""


def orientation(exif: bytes, xmp: bytes) -> int:
    """1 to 8, by EXIF, or by XMP where EXIF says nothing; 1 when neither can be read."""
    found = _XMP.search(xmp)
    return _by_exif(exif) or (int(found[1]) if found else 1)


def _by_exif(exif: bytes) -> int:
    """The orientation in the first directory of a TIFF header, 0 when there is none."""
    if not exif.startswith((b"II*\0", b"MM\0*")):
        return 0

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if exif.startswith(b"I") else "big")

    first = number(4, 4)
    for entry in range(min(number(first, 2), _MAX_ENTRIES)):
        at = first + 2 + 12 * entry
        if number(at, 2) == _TAG:
            value = number(at + 8, 2)
            return value if 1 <= value <= 8 else 0
    return 0
