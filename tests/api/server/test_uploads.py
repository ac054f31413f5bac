from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from api.server.checked_photos import check_upload
from api.server.testing import as_file


@pytest.fixture
def picture() -> Image.Image:
    """Left red, right blue, not square: turning and mirroring show."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = 200
    pixels[:, 30:, 2] = 200
    return Image.fromarray(pixels)


def test_nothing_of_the_uploaded_bytes_survives(picture, finder, decoder):
    exif = Image.Exif()
    exif[0x010E] = "SECRET-DESCRIPTION"
    exif.get_ifd(0x8825)[1] = "N"
    data = as_file(picture, "JPEG", exif=exif, comment=b"SECRET-COMMENT", icc_profile=b"SECRET-PROFILE" * 20)
    crop = check_upload(data + b"SECRET-ZIP-BEHIND", finder, decoder.decode).crop
    with Image.open(io.BytesIO(crop)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.info == {}
        assert not image.getexif()
    assert b"SECRET" not in crop


@pytest.mark.parametrize(("side", "stored"), [(20, 64), (200, 200), (3000, 512)])
def test_the_crop_is_no_larger_than_it_was_within_limits(finder, decoder, side, stored):
    crop = check_upload(as_file(Image.new("RGB", (side, side), "grey"), "PNG"), finder, decoder.decode).crop
    with Image.open(io.BytesIO(crop)) as image:
        assert image.size == (stored, stored)
