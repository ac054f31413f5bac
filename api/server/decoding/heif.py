"""The header of a HEIC or AVIF: the sizes of the pictures in it, and their colours where numbers say them."""

from __future__ import annotations

from collections.abc import Iterator

from api.server.decoding.code_points import profile_for
from api.server.decoding.header import CUT_SHORT, Header, broken, check_size
from core.errors import ImageAnimated, UploadRefused

MAX_BOXES = 4096
"""A phone's photo has about a hundred: its tiles share their properties."""
_SEQUENCES = frozenset({b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"})
_PATH = ((b"meta", 4), (b"iprp", 0), (b"ipco", 0))
"""The boxes in each other in which pictures are described, and the bytes before their first box."""
_MOST = 16
"""Bytes of a description that are looked at."""


def inspect(data: bytes) -> Header:
    """The largest size of all pictures in the file (tiles, thumbnail and depth map are smaller), and their colours.

    Raises ImageBroken, ImageTooManyPixels, ImageAnimated, and UploadRefused for more boxes than photos have.
    """
    if data[8:12] in _SEQUENCES:
        raise ImageAnimated("Send a single picture, not a sequence.", field="photo")
    sizes, profiles = [], []
    for kind, content in _Boxes(data).properties(0, len(data)):
        if kind == b"ispe" and len(content) >= 12:  # "image spatial extents": version, width, height
            width, height = int.from_bytes(content[4:8]), int.from_bytes(content[8:12])
            check_size(width, height)
            sizes.append((width, height))
        if kind == b"colr" and content.startswith(b"nclx"):
            profiles.append(profile_for(int.from_bytes(content[4:6]), int.from_bytes(content[6:8])))
    if not sizes:
        raise broken(CUT_SHORT)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Header(width, height, data, profile=profiles[0] if profiles else b"")


class _Boxes:
    """The boxes of a file, of which so many are looked at."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_BOXES

    def properties(self, at: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Kind and content of what is said of the pictures."""
        for kind, start, stop in self._within(at, end):
            if depth == len(_PATH):
                yield kind, self._data[start : min(stop, start + _MOST)]
            elif kind == _PATH[depth][0]:
                yield from self.properties(start + _PATH[depth][1], stop, depth + 1)

    def _within(self, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind, start and end of the contents of each box."""
        data = self._data
        while at + 8 <= end:
            self._left -= 1
            if self._left < 0:
                raise UploadRefused(f"This file has more than {MAX_BOXES} parts: export it as JPEG.", field="photo")
            size, kind, start = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], at + 8
            if size == 1:
                size, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
            size = size or end - at  # nothing is said: to the end
            if size < start - at or at + size > end:
                raise broken(CUT_SHORT)
            yield kind, start, at + size
            at += size
