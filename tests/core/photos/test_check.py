import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from api.server.testing import drawn_face
from core.errors import FaceTooSmall, NoFace, SeveralFaces
from core.hyperdreambooth.faces.dlib_recogniser import Appearance
from core.photos.check import check_photo, find_face
from core.photos.framing import Place
from core.photos.records import PhotoCheck, compare_photos

PHOTOS = Path(__file__).parents[4] / "shared" / "faces" / "eval.parquet"
needs_photos = pytest.mark.skipif(not PHOTOS.exists(), reason="the evaluation photos are not here")


def codes(check):
    return [reason.error.code for reason in check.reasons]


def warnings(check):
    return [warning.code for warning in check.warnings]


def group(*people, size=(900, 500)):
    """Drawn faces of (side, x, y, blur) in one picture."""
    photo = Image.new("RGB", size, (110, 120, 128))
    for side, x, y, blur in people:
        photo.paste(drawn_face(side).filter(ImageFilter.GaussianBlur(blur)), (x, y))
    return photo


def test_a_good_photo_has_nothing_against_it():
    found = check_photo(drawn_face(400))
    assert (codes(found), warnings(found), found.number, found.covers) == ([], [], 0, ())
    assert found.face is not None
    assert found.appearance is not None
    (place,) = found.places
    assert place.contains(0.5, 0.55)


def test_a_photo_has_all_its_reasons_at_once():
    photo = drawn_face(60).point(lambda value: value * 0.15)
    assert codes(check_photo(photo)) == ["face-too-small", "face-too-dark"]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 0.6, 1), (0, 0, 1, 0.66)])
def test_a_face_that_the_edge_cuts_is_refused(box, mirrored):
    photo = drawn_face(500).crop(tuple(int(500 * edge) for edge in box))
    found = check_photo(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else photo)
    assert codes(found)[0] == "face-cut-off"
    assert "edge" in found.reasons[0].seen
    assert "space around it" in found.reasons[0].advice


def test_what_is_cut_a_little_is_a_warning():
    found = check_photo(drawn_face(500).crop((160, 200, 340, 380)))
    assert codes(found) == []
    assert "face-at-the-edge" in warnings(found)


def test_two_alike_are_refused_and_the_caller_may_choose():
    photo = group((400, 20, 50, 0), (400, 470, 50, 0))
    found = check_photo(photo)
    assert codes(found) == ["several-faces"]
    assert len(found.places) == 2
    right = max(range(2), key=lambda number: found.places[number].left)
    chosen = check_photo(photo, right)
    assert (codes(chosen), chosen.number, warnings(chosen)) == ([], right, ["other-faces"])
    assert check_photo(photo, Place(0.5, 0.0, 1.0, 1.0)).number == right
    assert codes(check_photo(photo, Place(0.45, 0.9, 0.5, 1.0))) == ["no-face"]


def test_one_who_stands_out_is_taken():
    found = check_photo(group((480, 200, 10, 0), (300, 640, 150, 4)))
    assert codes(found) == []
    assert found.number is not None
    assert found.places[found.number].contains(0.49, 0.55)


def test_find_face_raises_the_first_reason():
    with pytest.raises(NoFace, match="send a photo"):
        find_face(Image.new("RGB", (300, 200), "white"))
    with pytest.raises(FaceTooSmall, match="at least 64 x 64"):
        find_face(Image.new("RGB", (20, 20)))
    with pytest.raises(SeveralFaces, match="crop the photo") as refused:
        find_face(group((400, 20, 50, 0), (400, 470, 50, 0)))
    assert refused.value.count == 2


def test_photos_of_two_people_name_the_one_that_does_not_fit():
    def person(place):
        return PhotoCheck(appearance=Appearance(np.eye(128)[0] * place, np.zeros((8, 8, 128))))

    compared = compare_photos([person(0.0), PhotoCheck(), person(0.2), person(1.0), person(0.95)])
    assert [codes(each) for each in compared] == [[], [], [], ["different-people"], ["different-people"]]
    assert [warnings(each) for each in compare_photos([person(0.0), person(0.6)])] == [[], ["unsure-same-person"]]


def people(count, *, photos=1):
    """The first photos of people of the evaluation photos, at 384 pixels."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = {}
    for row in parquet.read_table(PHOTOS, columns=["image", "identity", "source"]).to_pylist():
        if row["source"] == "celeba":
            found.setdefault(row["identity"], []).append(row["image"])
    return [
        Image.open(io.BytesIO(data)).convert("RGB").resize((384, 384), Image.Resampling.LANCZOS)
        for images in list(found.values())[:count]
        for data in images[:photos]
    ]


@needs_photos
@pytest.mark.slow
def test_fifty_ordinary_photos_are_accepted():
    found = [check_photo(photo) for photo in people(50)]
    assert [codes(each) for each in found if each.reasons] == []
    assert sum("mouth-covered" in warnings(each) for each in found) == 0


def masked(photo):
    ImageDraw.Draw(photo).polygon([(115, 225), (192, 212), (268, 225), (262, 290), (192, 335), (122, 290)], "#dfe6ea")
    return photo


def in_sunglasses(photo):
    draw = ImageDraw.Draw(photo)
    for x in (145, 239):
        draw.ellipse((x - 38, 155, x + 38, 212), "#141414")
    draw.line((150, 176, 230, 176), "#141414", 6)
    return photo


@needs_photos
@pytest.mark.slow
def test_twenty_awkward_photos_are_refused_or_warned_about():
    photos = people(20)
    cut = [check_photo(photo.crop((0, 0, 230, 384))) for photo in photos[:5]]
    assert [codes(each)[0] for each in cut] == ["face-cut-off"] * 5
    pairs = [check_photo(Image.fromarray(np.hstack([photos[n], photos[n + 1]]))) for n in range(5, 10)]
    assert [codes(each) for each in pairs] == [["several-faces"]] * 5
    assert all("mouth-covered" in warnings(check_photo(masked(photo))) for photo in photos[10:15])
    assert all("eyes-covered" in warnings(check_photo(in_sunglasses(photo))) for photo in photos[15:20])


@needs_photos
@pytest.mark.slow
def test_a_photo_of_another_person_is_named():
    photos = people(4, photos=3)
    for number in range(4):
        own, other = photos[3 * number : 3 * number + 3], photos[3 * number - 1]
        compared = compare_photos([check_photo(photo) for photo in [*own, other]])
        assert [codes(each) for each in compared] == [[], [], [], ["different-people"]]
