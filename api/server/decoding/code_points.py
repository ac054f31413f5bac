"""Colours that are said by numbers (ITU-T H.273: HEIC, AVIF, newer PNGs), as the profile that means the same."""

from __future__ import annotations

import struct

_XYZ = tuple[float, float, float]

_PRIMARIES: dict[int, tuple[_XYZ, _XYZ, _XYZ]] = {
    9: ((0.67349, 0.27904, -0.00193), (0.16567, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686)),
    12: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}
"""BT.2020 and Display P3: red, green and blue, adapted to D50. The others are as good as sRGB's, or not of photos."""
_TRANSFERS = frozenset({1, 6, 13, 14, 15})
"""sRGB's curve, and those of television, which photos are written with and meant alike. Not PQ and HLG (HDR)."""
_WHITE = (0.9642, 1.0, 0.8249)
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""sRGB's: exponent, slope, offset, slope near black, and where that begins."""


def profile_for(primaries: int, transfer: int) -> bytes:
    """An ICC profile of a display with these; nothing where pixels can be taken for sRGB's, or the numbers say more."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return b""
    tags = {b"wtpt": _xyz(_WHITE)}
    for channel, colour in zip(b"rgb", _PRIMARIES[primaries], strict=True):
        tags[bytes([channel]) + b"XYZ"] = _xyz(colour)
        tags[bytes([channel]) + b"TRC"] = b"para" + struct.pack(">IHH", 0, 3, 0) + _numbers(_CURVE)
    return _with_header(tags)


def _with_header(tags: dict[bytes, bytes]) -> bytes:
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for kind, content in tags.items():
        table += kind + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (head + _numbers(_WHITE)).ljust(128, b"\0") + table + body


def _xyz(value: _XYZ) -> bytes:
    return b"XYZ " + bytes(4) + _numbers(value)


def _numbers(values: tuple[float, ...]) -> bytes:
    """As ICC writes them: 16 bits before the point and 16 behind it."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
