"""Small files that are much work: each takes a decoder's weakness as far as ten megabytes go.

All are made from numbers. `refused` are those that no camera, phone or editor would write; the others are photos by
their header, and may be decoded, or refused, within the same limits.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

LARGEST = 10 * 2**20
SIDE = 5000


@dataclass(frozen=True)
class Bomb:
    """A file of at most ten megabytes; made when it is asked for."""

    name: str
    make: Callable[[], bytes]
    is_refused: bool = True


def bombs() -> Iterator[Bomb]:
    """All of them."""
    yield from _jpegs()
    yield from _pngs()
    yield from _others()


def _jpegs() -> Iterator[Bomb]:
    for side, mode in ((1000, "L"), (2000, "RGB"), (SIDE, "L")):
        yield Bomb(f"thousands of scans over {side} x {side} {mode}", partial(jpeg_of_scans, side, 10**6, mode))
    yield Bomb("65 scans", lambda: jpeg_of_scans(SIDE, 65, "RGB", refining=True))
    yield Bomb("60 refining scans", lambda: jpeg_of_scans(SIDE, 50, "RGB", refining=True), is_refused=False)
    yield Bomb("one sequential scan again and again", lambda: sequential_again(3000))
    yield Bomb("empty comments", lambda: _between(b"\xff\xfe\0\2" * (LARGEST // 4 - 300)))
    yield Bomb("empty profiles", lambda: _between(b"\xff\xe2\0\x10ICC_PROFILE\0\1\1" * (LARGEST // 18 - 100)))
    yield Bomb("fill bytes", lambda: _between(b"\xff" * (LARGEST - 2000)))
    yield Bomb("no marker", lambda: _between(bytes(LARGEST - 2000)))
    yield Bomb("standalone markers", lambda: _between(b"\xff\xd0" * (LARGEST // 2 - 1000)))
    yield Bomb("tables", lambda: _between(_huffman_table() * (LARGEST // 30)))
    yield Bomb("restarts in the scan", lambda: _in_scan(b"\xff\xd0" * (LARGEST // 2 - 2000)), is_refused=False)
    yield Bomb("stuffed bytes in the scan", lambda: _in_scan(b"\xff\0" * (LARGEST // 2 - 2000)), is_refused=False)
    yield Bomb("EXIF whose tags overlap", lambda: _between(_segment(0xE1, _overlapping_exif()) * 150), is_refused=False)
    yield Bomb("65,000 x 65,000 JPEG", lambda: _of_size(65_000, 65_000))
    yield Bomb("two frames", lambda: _between(_frame(SIDE, SIDE)))
    yield Bomb("noise without an end", lambda: _noise("JPEG", progressive=True)[:-100_000])


def _pngs() -> Iterator[Bomb]:
    unfolding = zlib.compress(bytes(200_000_000), 9)
    for kind, head in (("zTXt", b"a\0\0"), ("iTXt", b"a\0\1\0\0\0"), ("iCCP", b"a\0\0")):
        yield Bomb(f"{kind} that unfolds", partial(png, 8, 8, (kind, head + unfolding)), is_refused=False)
        name = f"many {kind} that unfold"
        yield Bomb(name, partial(png, 8, 8, *[(kind, head + unfolding)] * 40), is_refused=False)
    raw = b"Raw profile type exif\0\0" + unfolding
    yield Bomb("text that is EXIF", lambda: png(8, 8, *[("zTXt", raw)] * 40), is_refused=False)
    yield Bomb("a million chunks", lambda: png(8, 8, *[("tEXt", b"")] * 800_000))
    yield Bomb("a million pieces of the picture", lambda: png(8, 8, *[("IDAT", b"")] * 800_000))
    yield Bomb("frames", lambda: png(8, 8, ("acTL", struct.pack(">II", 10**6, 0)), *[("fdAT", bytes(8))] * 9000))
    yield Bomb("65,000 x 65,000 PNG", lambda: png(65_000, 65_000, pixels=b""))
    yield Bomb("25,000,000 x 1", lambda: png(25_000_000, 1))
    yield Bomb("1 x 25,000,000", lambda: png(1, 25_000_000))
    yield Bomb("pixels behind the last", lambda: png(8, 8, pixels=bytes(2**28)), is_refused=False)
    for depth, colour, interlaced in ((1, 0, 0), (16, 0, 1), (8, 6, 0), (16, 6, 1)):
        name = f"25 megapixels of {depth} bits, type {colour}, interlaced {interlaced}"
        make = partial(png, SIDE, SIDE, depth=depth, colour=colour, interlaced=interlaced)
        yield Bomb(name, make, is_refused=False)


def _others() -> Iterator[Bomb]:
    yield Bomb("WebP chunks", lambda: webp(b"junk\0\0\0\0" * 10**6))
    yield Bomb("WebP frames", lambda: webp((b"ANMF" + struct.pack("<I", 16) + bytes(16)) * 10**5))
    yield Bomb("WebP canvas", lambda: webp(_webp_chunk(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2)))
    yield Bomb("WebP of 25 megapixels", partial(_noise, "WEBP", method=0), is_refused=False)
    clear = partial(_flat, "RGBA", "WEBP", lossless=True, method=0)
    yield Bomb("clear WebP of 25 megapixels", clear, is_refused=False)
    yield Bomb("HEIC boxes", lambda: heif(_box(b"free") * 10**6))
    yield Bomb("HEIC boxes in boxes", lambda: heif(_nested(4000)))
    yield Bomb("AVIF of 65,000 x 65,000", lambda: heif(_extents(65_000, 65_000), brand=b"avif"))
    yield Bomb("AVIF sequence", lambda: heif(_extents(64, 64), brand=b"avis"))


def jpeg_of_scans(side: int, scans: int, mode: str, *, refining: bool = False) -> bytes:
    """A progressive JPEG of one colour, one of whose scans comes again and again, as often as ten megabytes allow."""
    data = as_file(Image.new(mode, (side, side), 128 if mode == "L" else (128, 90, 60)), "JPEG", progressive=True)
    found = [part for part in _scans(data) if _is_ac(part) and (not refining or _refines(part))]
    best = min(found, key=len)
    at = data.index(best) + len(best)
    return data[:at] + best * min(scans, (LARGEST - len(data)) // len(best)) + data[at:]


def sequential_again(side: int) -> bytes:
    """A sequential JPEG whose one scan comes again and again."""
    data = as_file(Image.new("L", (side, side), 128), "JPEG")
    (scan,) = _scans(data)
    at = data.index(scan)
    return data[:at] + scan * ((LARGEST - at) // len(scan)) + b"\xff\xd9"


def _scans(data: bytes) -> list[bytes]:
    """The scans of a JPEG, each with its header."""
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    parts = []
    for at in starts:
        end = at + 2
        while not (data[end] == 0xFF and data[end + 1] != 0 and not 0xD0 <= data[end + 1] <= 0xD7):
            end += 1
        parts.append(data[at:end])
    return parts


def _is_ac(scan: bytes) -> bool:
    return scan[5 + 2 * scan[4]] > 0


def _refines(scan: bytes) -> bool:
    return scan[7 + 2 * scan[4]] >> 4 > 0


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _small() -> bytes:
    return as_file(Image.new("RGB", (64, 64), "grey"), "JPEG")


def _between(stuff: bytes) -> bytes:
    """A JPEG with this before its first scan."""
    data = _small()
    at = data.index(b"\xff\xda")
    return data[:at] + stuff + data[at:]


def _in_scan(stuff: bytes) -> bytes:
    data = _small()
    return data[:-2] + stuff + data[-2:]


def _huffman_table() -> bytes:
    return _segment(0xC4, b"\0" + bytes([0, 2, *[0] * 14]) + b"\0\1")


def _frame(width: int, height: int) -> bytes:
    return _segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")


def _of_size(width: int, height: int) -> bytes:
    data = _small()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def _overlapping_exif() -> bytes:
    """Five thousand tags, each with the same sixty kilobytes."""
    entries = b"".join(struct.pack(">HHII", 0x9000 + at, 7, 60_000, 8) for at in range(5000))
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 5000) + entries + bytes(4)


def png(
    width: int,
    height: int,
    *chunks: tuple[str, bytes],
    depth: int = 8,
    colour: int = 0,
    interlaced: int = 0,
    pixels: bytes | None = None,
) -> bytes:
    """A PNG of this size by its header, black unless its `pixels` are given, with these chunks before them."""
    row = 1 + -(-width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8)
    data = zlib.compress(bytes(row * height * (2 if interlaced else 1)) if pixels is None else pixels, 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [("IHDR", header), *chunks, ("IDAT", data), ("IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind.encode(), content) for kind, content in parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def webp(stuff: bytes) -> bytes:
    """A small WebP with these chunks before its picture."""
    data = as_file(Image.new("RGB", (64, 64), "grey"), "WEBP")
    body = b"WEBP" + stuff + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content


def heif(stuff: bytes, brand: bytes = b"heic") -> bytes:
    """What begins as a HEIC and has these boxes."""
    return struct.pack(">I", 16) + b"ftyp" + brand + bytes(4) + stuff


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _nested(depth: int) -> bytes:
    boxes = b""
    for _ in range(depth):
        boxes = _box(b"ipco", boxes)
    return boxes


def _extents(width: int, height: int) -> bytes:
    ispe = _box(b"ispe", bytes(4) + struct.pack(">II", width, height))
    return _box(b"meta", bytes(4) + _box(b"iprp", _box(b"ipco", ispe)))


def _noise(kind: str, **options: object) -> bytes:
    """25 megapixels in which nothing repeats, as good as ten megabytes hold."""
    grain = np.random.default_rng(0).integers(0, 24, (SIDE, SIDE // 5), np.uint8)
    picture = Image.fromarray(np.tile(grain, (1, 5)) + 100).convert("RGB")
    return as_file(picture, kind, **options)


def _flat(mode: str, kind: str, **options: object) -> bytes:
    return as_file(Image.new(mode, (SIDE, SIDE)), kind, **options)


def as_file(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
