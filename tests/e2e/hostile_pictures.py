"""Pictures as those send them who mean harm, made here from numbers: nothing of it is in the repository.

A `Hostile` is a file and what may come of it: `cleaned` (accepted, and nothing but pixels is stored), or the codes that
it may be refused with. What is hidden in files is marked with SECRET, so that it can be looked for.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from api.server.testing import as_file, drawn_face

SECRET = b"SECRET-9f2c"
CLEANED = frozenset({"cleaned"})
BROKEN = frozenset({"image-broken", "unsupported-media-type"})
TYPE = frozenset({"unsupported-media-type"})
PIXELS = frozenset({"image-too-many-pixels"})
ANIMATED = frozenset({"image-animated"})
NO_FACE = frozenset({"no-face", "face-too-small"})
LARGE = frozenset({"upload-too-large"})
SIDE = 400
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how a camera that writes it has turned the picture."""


@dataclass(frozen=True)
class Hostile:
    """A file, what may come of it, and what it says that it is."""

    name: str
    data: bytes
    outcome: frozenset[str]
    filename: str = "photo.jpg"
    content_type: str = "image/jpeg"


def corpus() -> Iterator[Hostile]:
    """All of them, one after the other: some are large."""
    for part in (_bombs, _headers, _truncated, _polyglots, _animations, _modes, _metadata, _others, _large):
        yield from part()


def face() -> Image.Image:
    """What the good ones show."""
    return drawn_face(SIDE)


def _bombs() -> Iterator[Hostile]:
    """Few bytes, many pixels: as many as are allowed, and more."""
    for side, outcome in ((5000, NO_FACE), (5001, PIXELS), (16_000, PIXELS)):
        yield Hostile(f"PNG of {side} x {side}", png(side, side, depth=1), outcome)
    for mode in ("L", "RGB", "RGBA", "P", "I;16"):
        yield Hostile(f"{mode} PNG of 25 megapixels", _flat(mode, "PNG"), NO_FACE)
    yield Hostile("interlaced PNG of 25 megapixels", png(5000, 5000, interlaced=True), NO_FACE | BROKEN)
    yield Hostile("WebP of 25 megapixels", _flat("RGB", "WEBP"), NO_FACE)
    yield Hostile("clear WebP of 25 megapixels", _flat("RGBA", "WEBP"), NO_FACE)
    yield Hostile("WebP without loss of 25 megapixels", _flat("RGBA", "WEBP", lossless=True), NO_FACE)
    yield Hostile("WebP of 16,383 x 16,383", webp_header(16_383, 16_383), PIXELS | BROKEN)
    for mode in ("L", "RGB", "CMYK"):
        yield Hostile(f"{mode} JPEG of 25 megapixels", _flat(mode, "JPEG"), NO_FACE)
    yield Hostile("progressive JPEG of 25 megapixels", _flat("RGB", "JPEG", progressive=True), NO_FACE)
    yield Hostile("turned JPEG of 25 megapixels", _flat("RGB", "JPEG", exif=_orientation(6)), NO_FACE)
    yield Hostile("PNG of 25,000,000 x 1", png(25_000_000, 1, depth=1), NO_FACE | BROKEN)
    yield Hostile("PNG whose pixels are a bomb", png(64, 64, pixels=bytes(200_000_000)), NO_FACE | BROKEN)


def _headers() -> Iterator[Hostile]:
    """65,000 x 65,000, by the header alone."""
    jpeg = as_file(face())
    at = jpeg.index(b"\xff\xc0")
    yield Hostile("JPEG header", jpeg[: at + 5] + struct.pack(">HH", 65_000, 65_000) + jpeg[at + 9 :], PIXELS)
    yield Hostile("PNG header", png(65_000, 65_000, pixels=b""), PIXELS)
    yield Hostile("PNG header of 2^31 - 1", png(2**31 - 1, 2**31 - 1, pixels=b""), PIXELS | BROKEN)
    yield Hostile("PNG header of nothing", png(0, 0, pixels=b""), BROKEN | NO_FACE)
    yield Hostile("GIF header", b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + bytes(40), TYPE)
    yield Hostile("BMP header", b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 65_000, 65_000, 1, 24) + bytes(24), TYPE)
    size = struct.pack("<HHII", 256, 4, 1, 65_000) + struct.pack("<HHII", 257, 4, 1, 65_000)
    yield Hostile("TIFF header", b"II*\0\x08\0\0\0\x02\0" + size + bytes(4), TYPE)


def _truncated() -> Iterator[Hostile]:
    """Cut short at every tenth."""
    for kind in ("JPEG", "PNG", "WEBP"):
        data = as_file(face(), kind)
        for tenth in range(1, 10):
            yield Hostile(f"{kind} cut at {tenth} tenths", data[: len(data) * tenth // 10], BROKEN)


def _polyglots() -> Iterator[Hostile]:
    """Two kinds of file in one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("Evil.class", SECRET)
    script = b"<script>alert('" + SECRET + b"')</script>"
    jpeg = as_file(face())
    yield Hostile("PNG and ZIP", as_file(face(), "PNG") + archive.getvalue(), CLEANED)
    yield Hostile("JPEG and ZIP", jpeg + archive.getvalue(), CLEANED)
    yield Hostile("WebP and ZIP", as_file(face(), "WEBP") + archive.getvalue(), CLEANED)
    yield Hostile("JPEG and HTML", as_file(face(), comment=script), CLEANED, "photo.html", "text/html")
    yield Hostile("JPEG and JavaScript", jpeg[:2] + _segment(0xFE, b"*/=1;" + script + b"/*") + jpeg[2:], CLEANED)
    yield Hostile("JPEG and PHP", jpeg + b"<?php echo '" + SECRET + b"';", CLEANED, "photo.php.jpg")
    yield Hostile("PDF as JPEG", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" + jpeg, TYPE)
    yield Hostile("GIFAR", as_file(face().quantize(16), "GIF") + archive.getvalue(), TYPE, "photo.gif", "image/gif")
    yield Hostile("PNG with a chunk behind its end", as_file(face(), "PNG") + _chunk(b"tEXt", b"a\0" + SECRET), CLEANED)


def _animations() -> Iterator[Hostile]:
    """More than one picture in a file."""
    two = {"save_all": True, "append_images": [Image.new("RGB", (SIDE, SIDE), "green")]}
    yield Hostile("APNG", as_file(face(), "PNG", **two, duration=100), ANIMATED)
    yield Hostile("animated WebP", as_file(face(), "WEBP", **two, duration=100), ANIMATED)
    yield Hostile("MPO of a phone", as_file(face(), "MPO", **two), CLEANED)
    yield Hostile("animated GIF", as_file(face().quantize(16), "GIF", **two), TYPE)


def _modes() -> Iterator[Hostile]:
    """What is not 8-bit RGB."""
    rgb = face()
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size).point(lambda value: 224 + value // 8))
    palette = rgb.quantize(128)
    yield Hostile("CMYK JPEG", as_file(rgb.convert("CMYK")), CLEANED)
    yield Hostile("CMYK JPEG of Adobe, inverted", _adobe(rgb), CLEANED | NO_FACE)
    yield Hostile("grey JPEG", as_file(rgb.convert("L")), CLEANED)
    yield Hostile("16-bit PNG", as_file(deep, "PNG"), CLEANED)
    yield Hostile("clear PNG", as_file(clear, "PNG"), CLEANED)
    yield Hostile("palette", as_file(palette, "PNG"), CLEANED)
    yield Hostile(
        "palette with a clear colour", as_file(palette, "PNG", transparency=palette.getpixel((0, 0))), CLEANED
    )
    yield Hostile("1-bit PNG", as_file(rgb.convert("1"), "PNG"), CLEANED | NO_FACE | {"face-too-blurred"})


def _metadata() -> Iterator[Hostile]:
    """What cameras and programs write beside the pixels, broken and huge ones as well."""
    for orientation, turn in TURNS.items():
        turned = face().transpose(turn) if turn is not None else face()
        exif = _orientation(orientation)
        exif[0x010E] = SECRET.decode()
        exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 17.0)})
        for kind in ("JPEG", "PNG", "WEBP"):
            yield Hostile(f"{kind} turned as {orientation}", as_file(turned, kind, exif=exif), CLEANED)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        yield Hostile(f"{kind} with a profile", as_file(face(), kind, icc_profile=profile), CLEANED)
        yield Hostile(f"{kind} with a broken profile", as_file(face(), kind, icc_profile=SECRET * 40), CLEANED)
        yield Hostile(
            f"{kind} with broken EXIF", as_file(face(), kind, exif=b"Exif\0\0MM\0*\xff\xff" + SECRET), CLEANED
        )
    yield Hostile("JPEG with XMP", as_file(face(), xmp=xmp), CLEANED)
    yield Hostile("WebP with XMP", as_file(face(), "WEBP", xmp=xmp), CLEANED)
    yield Hostile("JPEG with a huge profile", as_file(face(), icc_profile=SECRET * 400_000), CLEANED)
    jpeg = as_file(face())
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\x1c\x02\x78\0\x0b" + SECRET
    yield Hostile("JPEG with IPTC", jpeg[:2] + _segment(0xED, iptc) + jpeg[2:], CLEANED)
    yield Hostile("JPEG with 100 comments", jpeg[:2] + _segment(0xFE, SECRET * 4000) * 100 + jpeg[2:], CLEANED)
    bomb = zlib.compress(bytes(100_000_000), 9)
    for name, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        yield Hostile(f"PNG with a {name.decode()} bomb", _with_chunk(name, head + bomb), CLEANED | BROKEN)
    yield Hostile("PNG with text", _with_chunk(b"tEXt", b"Comment\0" + SECRET), CLEANED)
    yield Hostile("PNG with 9 MB of text", _with_chunk(b"tEXt", b"Comment\0" + SECRET * 800_000), CLEANED | BROKEN)
    yield Hostile("PNG with 10,000 chunks", _with_chunk(b"tEXt", b"Comment\0" + SECRET, times=10_000), CLEANED | BROKEN)


def _others() -> Iterator[Hostile]:
    """No pictures, or of another kind, or called something else."""
    yield Hostile("no bytes", b"", TYPE)
    yield Hostile("text", b"hello", TYPE)
    yield Hostile("zeros", bytes(1000), TYPE)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield Hostile("SVG", svg, TYPE, "photo.svg", "image/svg+xml")
    yield Hostile("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), TYPE, "photo.heic", "image/heic")
    yield Hostile("JPEG marker and noise", b"\xff\xd8\xff\xe0" + np.random.default_rng(1).bytes(5000), BROKEN)
    for content_type in ("image/png", "text/plain", "application/x-php", "", "a" * 200):
        yield Hostile(f"JPEG as {content_type[:20]!r}", as_file(face()), CLEANED, "photo", content_type)
    for filename in ("../../etc/passwd", "a\u202egpj.exe", "x" * 500, "photo.jpg\0.php"):
        yield Hostile(f"JPEG called {filename[:20]!r}", as_file(face()), CLEANED, filename)


def _large() -> Iterator[Hostile]:
    """More bytes than are taken."""
    for megabytes in (10, 19, 40):
        yield Hostile(f"{megabytes} MB", as_file(face()) + bytes(megabytes * 2**20), LARGE)


def png(width: int, height: int, *, depth: int = 8, pixels: bytes | None = None, interlaced: bool = False) -> bytes:
    """A grey PNG of this size by its header; without `pixels` it has as many as it says, all black."""
    row = 1 + -(-width * depth // 8)
    data = zlib.compress(bytes(row * height) if pixels is None else pixels, 9)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    """A small WebP whose header says that it is this large."""
    data = bytearray(as_file(face(), "WEBP"))
    at = data.index(b"VP8 ") + 8 + 6
    data[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(data)


def _flat(mode: str, kind: str, **options: object) -> bytes:
    """25 megapixels of one colour."""
    return as_file(Image.new(mode, (5000, 5000)), kind, **options)


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _adobe(picture: Image.Image) -> bytes:
    """CMYK with its values upside down, and Adobe's marker that says so."""
    inverted = Image.fromarray(255 - np.asarray(picture.convert("CMYK")), "CMYK")
    data = as_file(inverted, quality=95)
    return data[:2] + _segment(0xEE, b"Adobe\0d\0\0\0\0\0") + data[2:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _with_chunk(kind: bytes, data: bytes, *, times: int = 1) -> bytes:
    """A good PNG with this chunk before its pixels."""
    good = as_file(face(), "PNG")
    at = good.index(b"IDAT") - 4
    return good[:at] + _chunk(kind, data) * times + good[at:]
