"""What docs/accepted.md is made of: requests, each with its name. Photos are made from numbers and show no one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from api.server.testing import as_file, drawn_face, side_by_side
from deploy.first_steps import DEMO_FACE
from tests.api.server.decoding.bombs import jpeg_of_scans
from tests.api.server.decoding.pictures import HEIC, with_chunk
from tests.api.server.decoding.profiles import WIDE, expressed_in
from tests.e2e.hostile_pictures import png

SIDE = 400
SUBJECT, NEW, UNKNOWN = "a subject", "a subject that is not ready", "an unknown subject"
"""Stand for ids in the fields of a generation."""


@dataclass(frozen=True)
class Upload:
    """Photos of one person in one request, with fields beside the consent; None takes a field away."""

    what: str
    photos: tuple[bytes, ...]
    fields: dict[str, str | None] = field(default_factory=dict)


def files() -> Iterator[Upload]:
    """One file each, whatever it shows."""
    face = drawn_face(SIDE)
    jpeg, two = as_file(face), {"save_all": True, "append_images": [Image.new("RGB", face.size, "green")]}
    exif = Image.Exif()
    exif[0x0112] = 6
    sent = {
        "JPEG": jpeg,
        "PNG": as_file(face, "PNG"),
        "WebP": as_file(face, "WEBP"),
        "AVIF": as_file(face, "AVIF"),
        "HEIC (with the extra `heic`, which the API's image has)": HEIC,
        "Display P3, Adobe RGB, ProPhoto or another profile: converted to sRGB": as_file(
            expressed_in(face, WIDE["Display P3"]), icc_profile=WIDE["Display P3"]
        ),
        "a broken profile: ignored": as_file(face, icc_profile=WIDE["Display P3"][:200]),
        "CMYK": as_file(face.convert("CMYK")),
        "gray, a palette, 1 bit, 16 bits": as_file(face.convert("L"), "PNG"),
        "a cut-out with a clear background: on white": as_file(face.convert("RGBA"), "PNG"),
        "turned by EXIF: upright": as_file(face.transpose(Image.Transpose.ROTATE_90), exif=exif),
        "several pictures of a phone in one JPEG (MPO): the first": as_file(face, "MPO", **two),
        "a JPEG that lacks only its end marker": jpeg[:-2],
        "something behind the end of the picture: dropped": jpeg + bytes(1000),
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "half a PNG": as_file(face, "PNG")[:5000],
        "an animated PNG or WebP": as_file(face, "PNG", **two, duration=100),
        "more than 25 megapixels": png(5001, 5001, depth=1),
        "more than 10 MB": jpeg + bytes(10 * 2**20),
        "a JPEG of more than 64 scans": jpeg_of_scans(1000, 65, "L"),
        "a PNG with 200,000 chunks": _chunks(as_file(face, "PNG"), 200_000),
        "GIF": as_file(face.quantize(16), "GIF"),
        "BMP": as_file(face, "BMP"),
        "TIFF, a camera's raw file": as_file(face, "TIFF"),
        "JPEG XL": b"\xff\x0a" + bytes(40),
        "a video": b"\0\0\0\x14ftypqt  \0\0\0\0" + bytes(40),
        "SVG, HTML": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.7\n",
        "no picture at all": b"hello",
    }
    return (Upload(what, (data,)) for what, data in sent.items())


def faces() -> Iterator[Upload]:
    """What photos show."""
    face, other = drawn_face(SIDE), Image.open(DEMO_FACE).convert("RGB").resize((SIDE, SIDE))
    both = as_file(side_by_side(face, face))
    yield Upload("one face from the front", (as_file(face),))
    yield Upload("the same person in several photos", (as_file(face), as_file(drawn_face(500))))
    yield Upload("two people in two photos", (as_file(face), as_file(other)))
    yield Upload("a person and someone behind, smaller and blurred", (as_file(_with_someone_behind(face)),))
    yield Upload("two people side by side", (both,))
    yield Upload("two people side by side, with `face=0`", (both,), {"face": "0"})
    yield Upload("two people side by side, with a `face` box around neither", (both,), {"face": "0.45,0.9,0.5,1"})
    yield Upload("sunglasses", (as_file(_in_sunglasses(face)),))
    yield Upload("a mask", (as_file(_masked(face)),))
    yield Upload("a face cut by the edge, one eye outside", (as_file(drawn_face(500).crop((0, 0, 300, 500)), "PNG"),))
    yield Upload("forehead or chin cut by the edge", (as_file(drawn_face(500).crop((160, 200, 340, 380))),))
    yield Upload("an empty wall", (as_file(Image.new("RGB", (300, 200), "white")),))
    yield Upload("a face of 48 pixels", (as_file(drawn_face(60), "PNG"),))
    yield Upload("a picture of 20 x 20 pixels", (as_file(drawn_face(20), "PNG"),))
    yield Upload("out of focus", (as_file(face.filter(ImageFilter.GaussianBlur(5))),))
    yield Upload("in the dark", (as_file(face.point([value * 15 // 100 for value in range(256)] * 3)),))
    yield Upload("in the glare of a flash", (as_file(face.point([min(255, value * 2) for value in range(256)] * 3)),))
    dark_and_small = drawn_face(60).point([value * 15 // 100 for value in range(256)] * 3)
    yield Upload("several of these at once", (as_file(face), as_file(dark_and_small, "PNG"), as_file(other)))


SUBJECT_FIELDS: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("no `consent`", {"consent": None}),
    ("`consent=false`", {"consent": "false"}),
    ("`name=` of blanks", {"name": "  "}),
    ("`class_noun=old man`", {"class_noun": "old man"}),
    ("`class_noun=a [V]`", {"class_noun": "a [V]"}),
    ("`keep_photos=maybe`", {"keep_photos": "maybe"}),
    ("`face=left`", {"face": "left"}),
    ('`options={"rank": 4, "steps": 50, "seed": 7}`', {"options": '{"rank": 4, "steps": 50, "seed": 7}'}),
    ('`options={"rank": 17}`', {"options": '{"rank": 17}'}),
    ('`options={"steps": 0}`', {"options": '{"steps": 0}'}),
    ("`options=fast`", {"options": "fast"}),
    ("a field that there is not", {"style": "sketch"}),
)
"""Beside a good photo."""

GENERATIONS: tuple[dict[str, Any], ...] = (
    {"prompt": "a pencil sketch of a [V] face"},
    {"prompt": "a pencil sketch of a [v] face"},
    {"prompt": "a pencil sketch"},
    {"prompt": " "},
    {"prompt": "a [V] face" + ", old" * 250},
    {"prompt": "a [V] face" + ", in a very small blue boat" * 20 + ", pencil sketch"},
    {"prompt": "a [V] face, (smiling:1.3)"},
    {"prompt": "a [V] face <lora:film:0.8>"},
    {"prompt": "a [V] face, 鉛筆画"},
    {"negative_prompt": "glasses"},
    {"n": 16},
    {"n": 17},
    {"n": 0},
    {"n": "4"},
    {"seed": 4294967295},
    {"seed": 4294967295, "n": 2},
    {"seed": 4294967296},
    {"seed": -1},
    {"steps": 100},
    {"steps": 101},
    {"guidance_scale": 0.5},
    {"strength": 0.5},
    {"strength": 1.5},
    {"width": 72},
    {"width": 100},
    {"width": 1032},
    {"stage": "preview"},
    {"stage": "best"},
    {"size": 64},
    {"subject_id": NEW},
    {"subject_id": UNKNOWN},
    {"subject_id": None},
    {"subject_id": None, "blend": [{"subject_id": SUBJECT, "weight": 3}, {"subject_id": NEW, "weight": 1}]},
    {"blend": [{"subject_id": SUBJECT, "weight": 3}, {"subject_id": SUBJECT, "weight": 1}]},
)
"""Instead of, or beside, `prompt` "a [V] face" and the `subject_id` of a subject that is ready."""


def _chunks(data: bytes, times: int) -> bytes:
    one = with_chunk(data, b"tEXt", b"Comment\0x")
    at, size = data.index(b"IDAT") - 4, len(one) - len(data)
    return data[:at] + one[at : at + size] * times + data[at:]


def _with_someone_behind(face: Image.Image) -> Image.Image:
    photo = Image.new("RGB", (900, 500), (110, 120, 128))
    photo.paste(face.resize((480, 480)), (200, 10))
    photo.paste(face.resize((300, 300)).filter(ImageFilter.GaussianBlur(4)), (640, 150))
    return photo


def _in_sunglasses(face: Image.Image) -> Image.Image:
    face = face.copy()
    draw, side = ImageDraw.Draw(face), face.width
    for x in (0.42, 0.58):
        draw.ellipse([side * each for each in (x - 0.075, 0.43, x + 0.075, 0.555)], "#141414")
    draw.line([side * each for each in (0.4, 0.465, 0.6, 0.465)], "#141414", 6)
    return face


def _masked(face: Image.Image) -> Image.Image:
    face = face.copy()
    shape = ((0.33, 0.57), (0.5, 0.55), (0.67, 0.57), (0.64, 0.72), (0.5, 0.81), (0.36, 0.72))
    ImageDraw.Draw(face).polygon([(x * face.width, y * face.width) for x, y in shape], "#dfe6ea")
    return face
