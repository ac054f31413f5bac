"""A photo's bytes to the RGB pixels of an upright picture: what the decoding process does; it needs no process."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Iterator

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from api.server.decoding import heif, jpeg, png, webp
from api.server.decoding.colours import to_srgb
from api.server.decoding.header import CUT_SHORT, Header, broken
from api.server.decoding.modern import avif_decoder, heic_decoder
from api.server.decoding.orientation import TURNS, orientation
from api.server.decoding.signatures import PhotoFormat, format_of
from core.errors import HyperDreamBoothError

_STRIP = 32_768
"""Pixels that are made RGB at a time: the memory of so few is used again and again, and never asked of the system."""
_ROWS = 4
"""Rows that are compared at a time, to see where an unfinished JPEG ends."""
_MOST_MISSING = 20
"""Rows of an unfinished JPEG, the last row of blocks and what its colours are mixed with; 1/32 of a small photo."""
_END = b"\xff\xd9"
_OTHER_PIXELS = bytes(range(1, 255)) * 8
"""What is read as pixels when pixels are missing: 2,032 bytes without a marker among them."""


class _Webp(WebPImageFile):
    """Lets go of the decoder and its two canvases (8 bytes a pixel) before the picture's own memory is taken."""

    def load_prepare(self) -> None:
        self._decoder = None
        super().load_prepare()


_INSPECT: dict[PhotoFormat, Callable[[bytes], Header]] = {
    PhotoFormat.JPEG: jpeg.inspect,
    PhotoFormat.PNG: png.inspect,
    PhotoFormat.WEBP: webp.inspect,
    PhotoFormat.AVIF: heif.inspect,
    PhotoFormat.HEIC: heif.inspect,
}
_DECODERS: dict[PhotoFormat, Callable[[], type[ImageFile.ImageFile]]] = {
    PhotoFormat.JPEG: lambda: JpegImageFile,
    PhotoFormat.PNG: lambda: PngImageFile,
    PhotoFormat.WEBP: lambda: _Webp,
    PhotoFormat.AVIF: avif_decoder,
    PhotoFormat.HEIC: heic_decoder,
}


class Photo:
    """A photo whose header is within limits; `decode` makes the picture."""

    def __init__(self, data: bytes) -> None:
        """Raises UnsupportedMediaType, ImageTooManyPixels, ImageAnimated, ImageBroken, UploadRefused."""
        self.format = format_of(data)
        self._decoder = _DECODERS[self.format]()
        with _broken_otherwise():
            self.header = _INSPECT[self.format](data)

    def decode(self) -> Picture:
        """The picture, upright. Raises ImageBroken, MemoryError."""
        with _broken_otherwise():
            header = self.header
            others = self._rows_otherwise() if header.is_unfinished else []
            # Not Image.open: it would hand a phone's JPEG with a second picture behind the first to another decoder.
            with self._decoder(io.BytesIO(header.data + (_END if header.is_unfinished else b""))) as image:
                exif = header.exif or image.info.get("exif") or b""
                turn = TURNS.get(orientation(exif.removeprefix(b"Exif\0\0"), header.xmp))
                profile = image.info.get("icc_profile") or header.profile
                image.load()
                if others:
                    _check_end(_rows(image), others)
                return Picture(image.transpose(turn) if turn is not None else image, profile)

    def _rows_otherwise(self) -> list[int]:
        """The rows of an unfinished JPEG when more data follows.

        The decoder fills in missing pixels without a word. Given more data it decodes that instead: where the two
        pictures begin to differ, the file ends. Nothing differs when all pixels are there.
        """
        with self._decoder(io.BytesIO(self.header.data + _OTHER_PIXELS + _END)) as image:
            image.load()
            return _rows(image)


class Picture:
    """A decoded picture: its size in pixels, and its pixels as they are asked for, so that it is in memory once."""

    def __init__(self, image: Image.Image, profile: bytes) -> None:
        self.size = image.size
        self._image = image
        self._convert = to_srgb(image, profile)

    def strips(self) -> Iterator[bytes]:
        """The pixels in sRGB, three bytes each, a few rows at a time from the top. Raises ImageBroken, MemoryError."""
        width, height = self.size
        rows = max(1, _STRIP // width)
        with _broken_otherwise():
            for top in range(0, height, rows):
                strip = self._image.crop((0, top, width, min(top + rows, height)))
                yield self._convert(strip).tobytes()


@contextlib.contextmanager
def _broken_otherwise() -> Iterator[None]:
    """The decoders raise a dozen kinds of errors over hostile files; none may become a fault of the service."""
    try:
        yield
    except (HyperDreamBoothError, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise broken("The file is damaged or cut short: export the photo again.") from error


def _rows(image: Image.Image) -> list[int]:
    """A checksum of every few rows."""
    tops = range(0, image.height, _ROWS)
    return [zlib.crc32(image.crop((0, top, image.width, min(top + _ROWS, image.height))).tobytes()) for top in tops]


def _check_end(rows: list[int], others: list[int]) -> None:
    """Raises ImageBroken when more than the end of the picture is missing."""
    same = next((at for at, pair in enumerate(zip(rows, others, strict=True)) if len(set(pair)) > 1), len(rows))
    if len(rows) - same > min(_MOST_MISSING // _ROWS, len(rows) // 32):
        raise broken(CUT_SHORT)
