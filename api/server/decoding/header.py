"""What is known of a photo before it is decoded, and the limits that are checked by it."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ImageBroken, ImageTooManyPixels

MAX_PIXELS = 25_000_000
MAX_SIDE = 65_535
"""Pixels, as in a JPEG: what is longer is a bomb, each row of which costs time and memory of its own."""
MAX_PROFILE_BYTES = 4 * 1024 * 1024
"""The largest colour profiles of scanners and printers have two megabytes; what is larger is ignored."""
CUT_SHORT = "The file is cut short: send all of it, or export the photo again."


@dataclass(frozen=True)
class Header:
    """The size in pixels, and the parts of the file, each as the bytes that it has there.

    `data` is what the decoder is given: the picture itself, without the metadata that was looked at here.
    """

    width: int
    height: int
    data: bytes
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    is_unfinished: bool = False
    """A JPEG without an end marker: the decoder finds out how much is missing."""

    def __post_init__(self) -> None:
        """Raises ImageBroken when there are no pixels, ImageTooManyPixels when there are too many."""
        check_size(self.width, self.height)


def check_size(width: int, height: int) -> None:
    """Raises ImageBroken for a picture without pixels, ImageTooManyPixels beyond MAX_PIXELS and MAX_SIDE."""
    if not width or not height:
        raise broken("By its header the picture has no pixels: export the photo again.")
    if width * height > MAX_PIXELS:
        raise ImageTooManyPixels(
            f"{width} x {height} is more than {MAX_PIXELS // 1_000_000} megapixels: send a smaller one.", field="photo"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageTooManyPixels(f"A side has at most {MAX_SIDE} pixels, not {max(width, height)}.", field="photo")


def broken(detail: str) -> ImageBroken:
    """The refusal of a damaged photo."""
    return ImageBroken(detail, field="photo")
