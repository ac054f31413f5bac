"""The header of a JPEG: its size, its scans, its metadata; and the picture alone, for the decoder.

Decoding a progressive JPEG takes a pass over all pixels for each scan, and a scan may have a dozen bytes: they are
counted first. Encoders write about ten (libjpeg ten, mozjpeg and jpegli up to about fifteen, Photoshop three to five).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from api.server.decoding.header import CUT_SHORT, Header, broken, check_size
from api.server.decoding.signatures import unsupported
from core.errors import UploadRefused

MAX_SCANS = 64
MAX_SEGMENTS = 4096
"""A photo has about ten; one whose profile, XMP and comments fill ten megabytes has 400."""
MAX_FILLER = 65_536
"""Bytes between segments, which some cameras leave."""
MAX_UNFINISHED_BYTES = 4 * 1024 * 1024
"""Of a progressive JPEG without an end: to see whether it is whole it is decoded twice, half a second for each 8 MB."""

_SOI, _EOI, _SOS, _DHT, _DAC = 0xD8, 0xD9, 0xDA, 0xC4, 0xCC
_APP0, _APP1, _APP2, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, _DAC, 0xC8}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_READ = _PROGRESSIVE | {0xC0, 0xC1, 0xC9}
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers that no length follows: TEM and the restarts."""
_METADATA = (frozenset(range(0xE0, 0xF0)) | {_COM}) - {_APP0, _APP14}
"""APP0 (JFIF) and APP14 (Adobe) say how colours are meant; the rest is not for the decoder."""
_MARKER = re.compile(rb"\xff[^\0\xff]", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff[^\0\xff\xd0-\xd7]", re.DOTALL)
_EXIF, _XMP, _PROFILE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"


class _Segment(NamedTuple):
    marker: int
    content: bytes
    """What its length counts; for a scan, its header alone."""
    start: int
    end: int
    """Where it lies in the file, with the scan's data."""


def inspect(data: bytes) -> Header:
    """What stands before and between the scans of a JPEG. What follows its end (a phone's second picture) is left out.

    Raises ImageBroken, ImageTooManyPixels, UnsupportedMediaType, and UploadRefused for more scans or segments than
    photos have.
    """
    frame, kept, metadata = _Frame(), [b"\xff\xd8"], _Metadata()
    marker = _SOI
    for segment in _segments(data):
        marker = segment.marker
        if marker == _SOI:
            break
        if marker in _METADATA:
            metadata.add(segment)
            continue
        frame.add(segment)
        kept.append(data[segment.start : segment.end])
    is_unfinished = marker != _EOI
    frame.check()
    if is_unfinished:
        frame.check_end(len(data))
    return Header(
        frame.width,
        frame.height,
        b"".join(kept).removesuffix(b"\xff") if is_unfinished else b"".join(kept),
        exif=metadata.exif,
        xmp=metadata.xmp,
        profile=b"".join(metadata.profile[number] for number in sorted(metadata.profile)),
        is_unfinished=is_unfinished,
    )


def _segments(data: bytes) -> Iterator[_Segment]:
    """All of them, to the end marker or to the end of the file."""
    at, filler = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        filler += found.start() - at
        if filler > MAX_FILLER:
            raise broken("The file is damaged: there is something else between its parts. Export the photo again.")
        segment = _segment(data, found.start())
        yield segment
        if segment.marker == _EOI:
            return
        at = segment.end
    raise UploadRefused(f"This JPEG has more than {MAX_SEGMENTS} parts: export the photo again.", field="photo")


def _segment(data: bytes, start: int) -> _Segment:
    marker = data[start + 1]
    if marker in _BARE or marker in (_SOI, _EOI):
        return _Segment(marker, b"", start, start + 2)
    size = int.from_bytes(data[start + 2 : start + 4])
    end = start + 2 + size
    if size < 2 or end > len(data):
        raise broken(CUT_SHORT)
    content = data[start + 4 : end]
    if marker == _SOS:
        found = _END_OF_SCAN.search(data, end)
        end = found.start() if found else len(data)
    return _Segment(marker, content, start, end)


class _Metadata:
    """What is said beside the picture: the first EXIF and XMP, and the parts of the colour profile by their number."""

    def __init__(self) -> None:
        self.exif = self.xmp = b""
        self.profile: dict[int, bytes] = {}

    def add(self, segment: _Segment) -> None:
        marker, content = segment.marker, segment.content
        if marker == _APP1 and content.startswith(_EXIF):
            self.exif = self.exif or content[len(_EXIF) :]
        elif marker == _APP1 and content.startswith(_XMP):
            self.xmp = self.xmp or content[len(_XMP) :]
        elif marker == _APP2 and content.startswith(_PROFILE) and len(content) > len(_PROFILE) + 2:
            self.profile.setdefault(content[len(_PROFILE)], content[len(_PROFILE) + 2 :])


class _Frame:
    """Size and components, and how much of them the scans have brought."""

    def __init__(self) -> None:
        self.width = self.height = self._scans = self._most_scans = 0
        self._is_progressive = False
        self._missing: dict[int, list[int]] = {}
        """Component -> for each coefficient the bits that are still to come; 16 when there is nothing of it yet."""

    def add(self, segment: _Segment) -> None:
        if segment.marker in _FRAMES:
            self._begin(segment)
        elif segment.marker == _SOS:
            self._scan(segment.content)

    def _begin(self, segment: _Segment) -> None:
        content = segment.content
        if self._missing or len(content) < 6 or len(content) < 6 + 3 * content[5]:
            raise broken("The JPEG's header is damaged: export the photo again.")
        if content[0] != 8 or segment.marker not in _READ:
            raise unsupported("This kind of JPEG (lossless, or of 12 bits) is not read: export an ordinary one.")
        self.height, self.width = int.from_bytes(content[1:3]), int.from_bytes(content[3:5])
        check_size(self.width, self.height)
        self._missing = {content[at]: [16] * 64 for at in range(6, 6 + 3 * content[5], 3)}
        self._is_progressive = segment.marker in _PROGRESSIVE
        self._most_scans = MAX_SCANS if self._is_progressive else len(self._missing)

    def _scan(self, content: bytes) -> None:
        count = content[0] if content else 0
        if not self._missing or not count or len(content) < 4 + 2 * count:
            raise broken("The JPEG's header is damaged: export the photo again.")
        self._scans += 1
        if self._scans > self._most_scans:
            raise UploadRefused(
                f"This JPEG comes in more than {self._most_scans} scans, which no camera or editor writes: "
                "export the photo again.",
                field="photo",
            )
        first, last, bits = content[1 + 2 * count], content[2 + 2 * count], content[3 + 2 * count] & 15
        for component in content[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                if component in self._missing:
                    self._missing[component][coefficient] = bits

    def check(self) -> None:
        """Raises ImageBroken without a frame or a scan."""
        if not self._scans:
            raise broken(CUT_SHORT)

    def check_end(self, size: int) -> None:
        """Of a file of this many bytes that has no end marker. Raises ImageBroken when it lacks whole scans."""
        lacks_scans = any(any(missing) for missing in self._missing.values())
        if lacks_scans or (self._is_progressive and size > MAX_UNFINISHED_BYTES):
            raise broken(CUT_SHORT)
