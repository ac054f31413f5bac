from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from api.server.decoding import modern
from api.server.decoding.pixels import Photo
from core.errors import ImageAnimated, ImageBroken, ImageTooManyPixels, UnsupportedMediaType, UploadRefused
from tests.api.server.decoding.bombs import as_file, png
from tests.api.server.decoding.pictures import FORMATS, HEIC, Good, good_photos, scene
from tests.api.server.decoding.profiles import GREY_OF_GAMMA_1


def decode(data: bytes) -> Image.Image:
    picture = Photo(data).decode()
    return Image.frombytes("RGB", picture.size, b"".join(picture.strips()))


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


@pytest.mark.parametrize("good", list(good_photos()), ids=lambda good: good.name)
def test_good_photos(good: Good):
    decoded = decode(good.data)
    assert decoded.size == good.shows.size
    assert difference(decoded, good.shows) <= good.difference


@pytest.mark.parametrize("kind", FORMATS)
def test_without_its_profile_a_wide_picture_would_be_dull(kind):
    """What the profiles above are there for: the same numbers mean other colours."""
    (good,) = [good for good in good_photos() if good.name == f"{kind} in Display P3"]
    with Image.open(io.BytesIO(good.data)) as image:
        stripped = as_file(image.convert("RGB"), kind, icc_profile=None)
    assert difference(decode(stripped), scene()) > 1.5


def test_grey_profile():
    half = as_file(Image.new("L", (16, 16), 128), "PNG", icc_profile=GREY_OF_GAMMA_1)
    assert decode(half).getpixel((3, 3)) == pytest.approx((188, 188, 188), abs=1)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(("kind", "options"), [(kind, {}) for kind in FORMATS] + [("JPEG", {"progressive": True})])
def test_what_is_cut_short_is_refused(kind, options, keep):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8))
    data = as_file(noise, kind, **options)
    with pytest.raises(ImageBroken, match="cut short"):
        decode(data[: int(len(data) * keep)])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_cut_wherever_it_is_cut(progressive):
    """However much is there of the picture: either all of its rows but the last few, or a refusal."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (640, 16, 3), np.uint8))
    data = as_file(noise, "JPEG", progressive=progressive)
    whole = np.asarray(decode(data), int)
    accepted = []
    for end in range(len(data) - 2, len(data) // 2, -97):
        try:
            found = np.abs(np.asarray(decode(data[:end]), int) - whole).max(axis=(1, 2)) > 0
        except ImageBroken:
            continue
        accepted.append(end)
        assert not found[: 640 - 20].any()
    assert accepted[0] == len(data) - 2


def test_a_decoder_is_given_the_picture_alone():
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    data = as_file(scene(), "JPEG", exif=exif, comment=b"SECRET", icc_profile=b"SECRET" * 20, xmp=b"SECRET")
    assert b"SECRET" not in Photo(data + b"SECRET").header.data


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 ", HEIC[:28]])
def test_rubbish_behind_a_good_beginning_is_refused(start):
    for seed in range(20):
        with pytest.raises(UploadRefused):
            decode(start + np.random.default_rng(seed).bytes(500))


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_refused_or_read(kind):
    data = as_file(scene(), kind)
    random = np.random.default_rng(2)
    for _ in range(60):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 4):
            damaged[at] = random.integers(0, 256)
        with contextlib.suppress(UploadRefused):
            assert decode(bytes(damaged)).mode == "RGB"


@pytest.mark.parametrize(
    "size", [(65_000, 65_000), (5_001, 5_000), (25_000_001, 1), (1, 70_000), (2**31 - 1, 2**31 - 1)]
)
def test_the_header_is_checked_before_the_pixels_are_read(size):
    with pytest.raises(ImageTooManyPixels, match=str(max(size))):
        Photo(png(*size, pixels=b""))


@pytest.mark.parametrize(("marker", "bits"), [(0xC3, 8), (0xC0, 12), (0xC1, 12)])
def test_rare_kinds_of_jpeg_are_refused_by_name(marker, bits):
    data = as_file(scene(), "JPEG")
    at = data.index(b"\xff\xc0")
    with pytest.raises(UnsupportedMediaType, match="12 bits"):
        Photo(data[: at + 1] + bytes([marker]) + data[at + 2 : at + 4] + bytes([bits]) + data[at + 5 :])


def test_no_pixels():
    with pytest.raises(ImageBroken):
        Photo(png(0, 0, pixels=b""))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "JPEG"])
def test_animations_are_refused(kind):
    other = Image.new("RGB", scene().size, "green")
    with pytest.raises(ImageAnimated):
        decode(as_file(scene(), kind, save_all=True, append_images=[other], duration=100))


def test_heic():
    if not any(map(find_spec, modern._HEIC)):
        with pytest.raises(UnsupportedMediaType, match=r"HEIC is not read here.*Most Compatible.*JPEG"):
            Photo(HEIC)
        return
    picture = decode(HEIC)
    assert picture.size == (64, 48)
    assert picture.getpixel((5, 5)) == pytest.approx((200, 0, 0), abs=4)
    assert picture.getpixel((60, 40)) == pytest.approx((0, 0, 200), abs=4)
    with pytest.raises(ImageBroken):
        decode(HEIC[:-10])


def test_without_decoders_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr(modern, "_HEIC", ("no_such_package",))
    monkeypatch.setattr(modern.features, "check", lambda _: False)
    for name, data in (("HEIC", HEIC), ("AVIF", HEIC.replace(b"ftypheic", b"ftypavif"))):
        with pytest.raises(UnsupportedMediaType, match=f"{name} is not read here.*Most Compatible.*JPEG"):
            Photo(data)
