"""Good photos of every kind: each format with each profile, orientation and mode, made from numbers."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

from tests.api.server.decoding.bombs import as_file, chunk
from tests.api.server.decoding.profiles import SRGB, WIDE, expressed_in

FORMATS = ("JPEG", "PNG", "WEBP", *(["AVIF"] if features.check("avif") else []))
HOW_TURNED = {
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

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABoQABAAAAAAAAACUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAA"
    "AADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkA"
    "AAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAA"
    "AAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAC"
    "1tZGF0AAAAISgBrxmA70mlv//q35/35a/5fshf/8NPHfaXp/xZYNtbwA=="
)
"""64 x 48 pixels, the left half (200, 0, 0) and the right half (0, 0, 200)."""


@dataclass(frozen=True)
class Good:
    """A photo, and what it shows: RGB in sRGB, upright."""

    name: str
    data: bytes
    shows: Image.Image
    difference: float = 3.0
    """The most that the two may differ, as the mean over all pixels and channels."""


def scene(width: int = 120, height: int = 88) -> Image.Image:
    """Soft colours that differ in each corner: turns and mirrors show, and compression loses little."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 60 + 150 * x / width, 60 + 120 * y / height
    blue = 170 - 80 * (x / width) * (y / height)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def good_photos() -> Iterator[Good]:
    """All of them."""
    yield from _with_profiles()
    yield from _turned()
    yield from _modes()
    yield from _as_sent()


def _with_profiles() -> Iterator[Good]:
    for kind in FORMATS:
        quality = {} if kind == "PNG" else {"quality": 97}
        for name, data in {**WIDE, "sRGB": SRGB}.items():
            there = expressed_in(scene(), data)
            most = 1.6 if name == "ProPhoto" else 1.0
            yield Good(f"{kind} in {name}", as_file(there, kind, icc_profile=data, **quality), scene(), most)
        for name, data in {"broken": WIDE["Display P3"][:200], "meaningless": b"profile" * 100}.items():
            if kind != "AVIF":  # Pillow does not write one
                yield Good(f"{kind} with a {name} profile", as_file(scene(), kind, icc_profile=data), scene())

    p3 = expressed_in(scene(), WIDE["Display P3"])
    data = with_chunk(as_file(p3, "PNG"), b"cICP", b"\x0c\x0d\0\1")
    yield Good("PNG in Display P3 by numbers", data, scene(), 1.0)
    if "AVIF" in FORMATS:
        data = as_file(p3, "AVIF", quality=97).replace(b"nclx\0\1\0\x0d", b"nclx\0\x0c\0\x0d")
        yield Good("AVIF in Display P3 by numbers", data, scene(), 1.0)


def _turned() -> Iterator[Good]:
    for orientation, turn in HOW_TURNED.items():
        there = scene().transpose(turn) if turn is not None else scene()
        exif = Image.Exif()
        exif[0x0112] = orientation
        as_bytes = exif.tobytes()
        for kind in FORMATS:
            yield Good(f"{kind} turned as {orientation}", as_file(there, kind, exif=as_bytes), scene())
        broken = b"Exif\0\0MM\0*\xff\xff" + bytes([orientation] * 40)
        for kind in ("JPEG", "PNG", "WEBP"):
            yield Good(f"{kind} with broken EXIF {orientation}", as_file(scene(), kind, exif=broken), scene())
        xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
        yield Good(f"JPEG turned as {orientation} by XMP", as_file(there, "JPEG", xmp=xmp), scene())
        for flags, text in ((b"\0\0", xmp), (b"\1\0", zlib.compress(xmp))):
            data = with_chunk(as_file(there, "PNG"), b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"\0\0" + text)
            yield Good(f"PNG turned as {orientation} by XMP {flags!r}", data, scene())
        text = b"\nexif\n      32\n" + as_bytes.hex().encode()
        data = with_chunk(as_file(there, "PNG"), b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
        yield Good(f"PNG turned as {orientation} by a text", data, scene())


def _modes() -> Iterator[Good]:
    grey, rgb = scene().convert("L"), scene()
    as_rgb = grey.convert("RGB")
    for kind in ("JPEG", "PNG", "WEBP"):
        yield Good(f"grey {kind}", as_file(grey, kind), as_rgb)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            data = as_file(rgb, "JPEG", subsampling=subsampling, progressive=progressive, quality=92)
            yield Good(f"JPEG of subsampling {subsampling}, progressive {progressive}", data, rgb)
    yield Good("CMYK JPEG of Adobe, inverted", as_file(rgb.convert("CMYK"), "JPEG", quality=95), rgb)
    cmyk = as_file(rgb.convert("CMYK"), "JPEG", quality=95, icc_profile=SRGB)
    yield Good("CMYK JPEG with an RGB profile", cmyk, rgb)
    yield Good("grey JPEG with an RGB profile", as_file(grey, "JPEG", icc_profile=WIDE["ProPhoto"]), as_rgb)
    yield Good("palette", as_file(rgb.quantize(256), "PNG"), rgb, 6.0)
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size))
    over_white = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), clear.getchannel("A"))
    for kind in ("PNG", "WEBP"):
        yield Good(f"half clear {kind}", as_file(clear, kind), over_white)
    in_p3 = expressed_in(rgb, WIDE["Display P3"])
    in_p3.putalpha(clear.getchannel("A"))
    yield Good("half clear PNG in Display P3", as_file(in_p3, "PNG", icc_profile=WIDE["Display P3"]), over_white, 1.0)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    yield Good("clear palette", as_file(palette, "PNG", transparency=1), Image.new("RGB", (8, 8), "white"))
    for name, colour, picture in (("grey", 0, grey), ("RGB", 2, rgb)):
        yield Good(f"{name} of 16 bits", _deep(picture, colour), picture.convert("RGB"), 1.0)
        data = _deep(picture, colour, (b"tRNS", bytes([0, 7] * (1 if colour == 0 else 3))))
        yield Good(f"{name} of 16 bits with a clear colour", data, picture.convert("RGB"), 1.0)


def _as_sent() -> Iterator[Good]:
    """What phones and transfers make of files."""
    small = as_file(scene(32, 24), "JPEG")
    for progressive in (False, True):
        jpeg = as_file(scene(), "JPEG", quality=92, progressive=progressive)
        for name, data in {
            "without its end marker": jpeg[:-2],
            "without half its end marker": jpeg[:-1],
            "with zeros behind it": jpeg + bytes(1000),
            "with a second picture behind it": jpeg + small,
            "without an end, and a second picture": jpeg[:-2] + small,
            "with a film behind it": jpeg + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 50,
            "with fill bytes": jpeg[:2] + b"\xff" * 99 + jpeg[2:],
        }.items():
            yield Good(f"JPEG, progressive {progressive}, {name}", data, scene())
    yield Good("MPO", as_file(scene(), "MPO", save_all=True, append_images=[scene(32, 24)]), scene())
    png = as_file(scene(), "PNG")
    yield Good("PNG without its end", png[:-12], scene())
    yield Good("PNG with something behind its end", png + b"PK\3\4" + bytes(100), scene())


def _deep(picture: Image.Image, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel."""
    pixels = np.asarray(picture).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", *picture.size, 16, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with this chunk before its pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk(kind, content) + png[at:]


def form(photo: bytes, *, host: str) -> bytes:
    """A whole request that posts this photo, as it goes over a socket."""
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    head = part.format("consent") + "true\r\n" + part.format('photo"; filename="me.jpg')
    body = head.encode() + photo + b"\r\n--b--\r\n"
    lines = (
        "POST /v1/subjects HTTP/1.1",
        f"Host: {host}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
