from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from api.server.testing import as_file
from api.server.uploads import MAX_PHOTO_BYTES, decode, face_crop
from core.errors import (
    ImageAnimated,
    ImageBroken,
    ImageTooManyPixels,
    NoFace,
    UnsupportedMediaType,
    UploadRefused,
    UploadTooLarge,
)


@pytest.fixture
def picture() -> Image.Image:
    """Left red, right blue, not square: turning and mirroring show."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = 200
    pixels[:, 30:, 2] = 200
    return Image.fromarray(pixels)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header declares so many pixels, without them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_decodes_what_it_accepts(picture, kind):
    image = decode(as_file(picture, kind, quality=95))
    assert image.mode == "RGB"
    assert image.size == (60, 40)
    assert np.abs(np.asarray(image, int) - np.asarray(picture, int)).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_what_is_cut_short_is_refused(kind, keep):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    data = as_file(noise, kind)
    with pytest.raises(ImageBroken):
        decode(data[: int(len(data) * keep)])


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%PDF-1.7\n...", b"GIF89a" + bytes(40), b"\0" * 100, b"BM" + bytes(60)]
)
def test_other_files_are_refused_by_their_content(data):
    with pytest.raises(UnsupportedMediaType) as caught:
        decode(data)
    assert caught.value.field == "photo"


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 "])
def test_rubbish_behind_a_good_beginning_is_refused(start):
    with pytest.raises(UploadRefused):
        decode(start + np.random.default_rng(1).bytes(500))


@pytest.mark.parametrize("size", [(65_000, 65_000), (5_001, 5_000), (25_000_001, 1)])
def test_the_header_is_checked_before_the_pixels_are_read(size):
    with pytest.raises(ImageTooManyPixels):
        decode(png_of_size(*size))


def test_size_in_bytes_is_limited():
    with pytest.raises(UploadTooLarge):
        decode(b"\xff\xd8\xff" + bytes(MAX_PHOTO_BYTES))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(picture, kind):
    other = Image.new("RGB", picture.size, "green")
    with pytest.raises(ImageAnimated):
        decode(as_file(picture, kind, save_all=True, append_images=[other], duration=100))


def test_a_phones_jpeg_with_a_second_picture_behind_it_is_one_picture(picture):
    second = Image.new("RGB", picture.size, "green")
    image = decode(as_file(picture, "MPO", save_all=True, append_images=[second]))
    assert np.asarray(image)[20, 5, 0] > 150


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(as_file(picture, "JPEG", quality=95, exif=exif))
    assert upright.size == ((60, 40) if orientation < 5 else (40, 60))
    red_is_at = {1: (5, 20), 2: (55, 20), 3: (55, 20), 4: (5, 20), 5: (20, 5), 6: (20, 5), 7: (20, 55), 8: (20, 55)}
    red, _, blue = upright.getpixel(red_is_at[orientation])
    assert red > 150 > blue


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_spoil_the_picture(picture):
    assert decode(as_file(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff rubbish")).size == (60, 40)


def test_modes_become_rgb(picture):
    grey = Image.new("L", (20, 20), 128)
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    deep = Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))
    palette = picture.quantize(4)
    expected = {
        as_file(grey, "PNG"): (128, 128, 128),
        as_file(deep, "PNG"): (128, 128, 128),
        as_file(clear, "PNG"): (255, 255, 255),
        as_file(clear, "WEBP", lossless=True): (255, 255, 255),
        as_file(Image.new("LA", (20, 20), (10, 0)), "PNG"): (255, 255, 255),
        as_file(Image.new("1", (20, 20), 1), "PNG"): (255, 255, 255),
        as_file(palette, "PNG"): (200, 0, 0),
        as_file(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", quality=95): (255, 0, 0),
    }
    for data, colour in expected.items():
        image = decode(data)
        assert image.mode == "RGB"
        assert np.abs(np.subtract(image.getpixel((3, 3)), colour)).max() <= 3


def test_a_clear_palette_colour_becomes_white(picture):
    palette = picture.quantize(4)
    index = palette.getpixel((3, 3))
    assert decode(as_file(palette, "PNG", transparency=index)).getpixel((3, 3)) == (255, 255, 255)


def test_nothing_of_the_uploaded_bytes_survives(picture, finder):
    exif = Image.Exif()
    exif[0x010E] = "SECRET-DESCRIPTION"
    exif.get_ifd(0x8825)[1] = "N"
    data = as_file(picture, "JPEG", exif=exif, comment=b"SECRET-COMMENT", icc_profile=b"SECRET-PROFILE" * 20)
    crop = face_crop(data + b"SECRET-ZIP-BEHIND", finder)
    with Image.open(io.BytesIO(crop)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.info == {}
        assert not image.getexif()
    assert b"SECRET" not in crop


@pytest.mark.parametrize(("side", "stored"), [(20, 64), (200, 200), (3000, 512)])
def test_the_crop_is_no_larger_than_it_was_within_limits(finder, side, stored):
    crop = face_crop(as_file(Image.new("RGB", (side, side), "grey"), "PNG"), finder)
    with Image.open(io.BytesIO(crop)) as image:
        assert image.size == (stored, stored)


def test_a_refusal_names_the_field(picture, finder):
    finder.refusal = NoFace()
    with pytest.raises(NoFace) as caught:
        face_crop(as_file(picture, "PNG"), finder)
    assert caught.value.field == "photo"
