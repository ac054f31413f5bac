"""Photos of one person as they come in: each is checked in a thread and held against the others, then cut out."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from anyio import to_thread
from PIL import Image
from starlette.requests import Request

from api.server.decoding.decoder import SenderGone
from api.server.errors import InvalidFields, MalformedRequest, PhotosRefused
from api.server.limits import keep_charges
from api.server.uploads import disconnection
from core.errors import InvalidInput, UploadRefused
from core.hyperdreambooth.faces.alignment import FRAME, Face
from core.photos.choice import Choice
from core.photos.framing import Place
from core.photos.records import PhotoCheck, compare_photos
from core.records import SubjectWarning
from hyperdreambooth import schemas

CROP_SIZES = (64, 512)
"""Smallest and largest side of the stored crop, in pixels."""
CROP_SENT = 256
"""Largest side of a crop in the answer of a check, in pixels."""

Decode = Callable[[bytes], Image.Image]
"""`decoding.decoder.PhotoDecoder.decode`."""

PhotoChecker = Callable[[Image.Image, Choice | None], PhotoCheck]
"""`core.photos.check.check_photo`, or a test's fake."""


@dataclass(frozen=True)
class CheckedPhoto:
    """One upload: its check, without pixels, and the aligned face as PNG; empty when it was refused.

    ``broken`` says why a file could not even be decoded.
    """

    check: PhotoCheck
    crop: bytes = b""
    broken: UploadRefused | None = None


@dataclass(frozen=True)
class CheckedPhotos:
    """Photos that were all accepted: their aligned faces as PNG, and what to warn about."""

    crops: list[bytes]
    warnings: list[SubjectWarning]


async def check_all(
    request: Request,
    photos: Sequence[bytes],
    choices: Sequence[Choice | None],
    check_photo: PhotoChecker,
    kept: Iterable[bytes] = (),
) -> CheckedPhotos:
    """The photos of one person, as `compare_all` checks them. Raises PhotosRefused with all reasons against each."""
    return _accepted(await compare_all(request, photos, choices, check_photo, kept))


async def compare_all(
    request: Request,
    photos: Sequence[bytes],
    choices: Sequence[Choice | None],
    check_photo: PhotoChecker,
    kept: Iterable[bytes] = (),
) -> list[CheckedPhoto]:
    """Photos, checked in threads, as many at once as the settings say, and held against each other and those `kept`.

    `kept` are aligned faces (PNG) of earlier photos; the new ones must show the same person. Raises MalformedRequest
    as soon as the sender has hung up: the work ends then.
    """
    state = request.app.state
    keep_charges(request)
    async with disconnection(request) as gone:
        decode = partial(state.decoder.decode, is_gone=gone.is_set)
        checks = [
            partial(check_upload, photo, check_photo, decode, choice)
            for photo, choice in zip(photos, choices, strict=True)
        ]
        try:
            checked = [await to_thread.run_sync(check, limiter=state.decoders) for check in checks]
        except SenderGone:
            raise MalformedRequest("The connection was closed before the photos were read.") from None
        earlier: list[PhotoCheck] = []
        if any(each.check.appearance for each in checked):
            earlier = await to_thread.run_sync(_check_kept, kept, limiter=state.decoders)
    compared = compare_photos([each.check for each in checked], earlier)
    return [replace(each, check=check) for each, check in zip(checked, compared, strict=True)]


def _check_kept(kept: Iterable[bytes]) -> list[PhotoCheck]:
    from core.photos.check import check_crop  # noqa: PLC0415  (as in `the_photo_checker`)

    found = []
    for data in kept:
        with Image.open(io.BytesIO(data)) as aligned:
            found.append(check_crop(aligned))
    return found


def _accepted(checked: Sequence[CheckedPhoto]) -> CheckedPhotos:
    """What becomes of photos of one person. Raises PhotosRefused."""
    if any(each.broken or each.check.reasons for each in checked):
        raise _refusal(checked)
    warnings = [
        SubjectWarning(**warning.model_dump())
        for number, each in enumerate(checked)
        for warning in warnings_of(number, each)
    ]
    return CheckedPhotos([each.crop for each in checked], warnings)


def warnings_of(number: int, photo: CheckedPhoto) -> list[schemas.PhotoWarning]:
    """What the use of a photo will cost; `number` says which of the photos it is."""
    return [schemas.PhotoWarning(photo=number, code=each.code, message=each.detail) for each in photo.check.warnings]


def check_upload(data: bytes, check_photo: PhotoChecker, decode: Decode, choice: Choice | None = None) -> CheckedPhoto:
    """One upload decoded, checked and cut out; only the aligned face outlives this, its side within CROP_SIZES."""
    try:
        image = decode(data)
    except UploadRefused as error:
        # Without its traceback, whose frames hold the upload: refusals would keep it until garbage is collected.
        return CheckedPhoto(PhotoCheck(), broken=error.with_traceback(None))
    check = check_photo(image, choice)
    crop = b"" if check.reasons or check.face is None else _crop(check.face)
    return CheckedPhoto(replace(check, face=None), crop)


def crop_as_url(crop: bytes) -> str:
    """A crop (PNG) as a `data:` URL: a WebP of at most CROP_SENT pixels."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(crop), formats=["PNG"]) as image:
        image.thumbnail((CROP_SENT, CROP_SENT))
        image.save(out, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def read_choices(text: str, count: int) -> list[Choice | None]:
    """Which face is meant in each of `count` photos, from the form's `face` field.

    A number or a box for each photo, separated by semicolons; nothing where a photo needs no choice. Raises
    InvalidFields.
    """
    parts = text.split(";") if text else []
    if len(parts) > count:
        raise _invalid(f"Send at most one choice for each of the {count} photos, separated by semicolons.")
    return [_choice(part.strip()) for part in parts] + [None] * (count - len(parts))


def _choice(text: str) -> Choice | None:
    if not text:
        return None
    if re.fullmatch(r"\d{1,2}", text):
        return int(text)
    edges = re.fullmatch(r"([\d.]+),([\d.]+),([\d.]+),([\d.]+)", text.replace(" ", ""))
    try:
        box = Place(*map(float, edges.groups())) if edges else None
    except ValueError:
        box = None
    if box is None or not (0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1):
        raise _invalid("Send the number of a face, or left,top,right,bottom as fractions of the photo, 0 to 1.")
    return box


def _invalid(message: str) -> InvalidFields:
    return InvalidFields([schemas.FieldProblem(field="face", message=message)])


def _crop(face: Face) -> bytes:
    smallest, largest = CROP_SIZES
    side = face.eye_distance / float(FRAME[1, 0] - FRAME[0, 0])
    out = io.BytesIO()
    crop = face.aligned(round(min(largest, max(smallest, side))))
    Image.fromarray(np.asarray(crop)).save(out, format="PNG")
    return out.getvalue()


def _refusal(checked: Sequence[CheckedPhoto]) -> PhotosRefused:
    found = [(number, error) for number, each in enumerate(checked) if (error := each.broken or each.check.error())]
    number, first = found[0]
    if len(checked) > 1:
        first.detail = f"Photo {number + 1} of {len(checked)}: {first.detail}"
    first.field = "photo"
    return PhotosRefused(
        first, [problem for number, each in enumerate(checked) for problem in problems_of(number, each)]
    )


def faces_of(photo: CheckedPhoto) -> list[schemas.FaceBox]:
    """Where the faces of a photo are."""
    return [schemas.FaceBox(**vars(place)) for place in photo.check.places]


def problems_of(number: int, photo: CheckedPhoto) -> list[schemas.FieldProblem]:
    """Each reason against a photo; none when it was accepted."""
    faces = faces_of(photo)
    if photo.broken:
        return [_problem(number, photo.broken, photo.broken.detail, None, [])]
    return [_problem(number, reason.error, reason.seen, reason.advice, faces) for reason in photo.check.reasons]


def _problem(
    number: int,
    error: InvalidInput | type[InvalidInput],
    message: str,
    advice: str | None,
    faces: list[schemas.FaceBox],
) -> schemas.FieldProblem:
    return schemas.FieldProblem(
        field="photo", message=message, code=error.code, photo=number, advice=advice, faces=faces or None
    )
