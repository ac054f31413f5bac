from __future__ import annotations

import pytest

from api.server.decoding.signatures import PhotoFormat, format_of
from core.errors import UnsupportedMediaType
from tests.api.server.decoding.bombs import as_file
from tests.api.server.decoding.pictures import FORMATS, HEIC, scene


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_read(kind):
    assert format_of(as_file(scene(), kind)) is PhotoFormat[kind]
    assert format_of(HEIC) is PhotoFormat.HEIC


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (as_file(scene(), "GIF"), "a GIF"),
        (as_file(scene(), "BMP"), "a BMP"),
        (as_file(scene(), "TIFF"), "a TIFF"),
        (as_file(scene(), "ICO"), "an icon"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%PDF-1.7\n...", "a PDF"),
        (b"PK\x03\x04...", "a ZIP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n<!doctype html>", "HTML"),
        (b"", "no picture that is known"),
        (b"hello", "no picture that is known"),
        (bytes(100), "no picture that is known"),
    ],
)
def test_other_files_are_refused_by_name(data, name):
    with pytest.raises(UnsupportedMediaType, match=name) as caught:
        format_of(data)
    assert caught.value.field == "photo"
