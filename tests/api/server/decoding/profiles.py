"""Colour profiles made from published primaries: matrix and curve, as phones and cameras embed them."""

from __future__ import annotations

import io
import struct

from PIL import Image, ImageCms

XYZ = tuple[float, float, float]
_WHITE: XYZ = (0.9642, 1.0, 0.8249)


def _number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(value: XYZ) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_number, value))


def _curve(gamma: float | None) -> bytes:
    """A power, or the curve of sRGB."""
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    levels = [level / 1023 for level in range(1024)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in levels]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *[round(65535 * value) for value in linear])


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 for a display."""
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(_WHITE), **tags}
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for kind, content in tags.items():
        table += kind + struct.pack(">II", at, len(content))
        padded = content + bytes(-len(content) % 4)
        body, at = body + padded, at + len(padded)
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(_number, _WHITE))
    return head.ljust(128, b"\0") + table + body


def rgb(red: XYZ, green: XYZ, blue: XYZ, gamma: float | None = None) -> bytes:
    """A profile by its primaries, adapted to D50."""
    primaries = {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)}
    return profile(b"RGB ", primaries | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


DISPLAY_P3 = rgb((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = rgb((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 2.19921875)
PROPHOTO = rgb((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491), 1.8)
GREY_OF_GAMMA_1 = profile(b"GRAY", {b"kTRC": _curve(1.0)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

WIDE = {"Display P3": DISPLAY_P3, "Adobe RGB": ADOBE_RGB, "ProPhoto": PROPHOTO}


def expressed_in(picture: Image.Image, target: bytes) -> Image.Image:
    """The same colours as numbers of another space."""
    source, into = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (SRGB, target))
    result = ImageCms.profileToProfile(picture, source, into, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")
    assert result is not None
    return result
