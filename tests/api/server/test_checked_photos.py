from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api.server.app import create_app
from api.server.checked_photos import read_choices
from api.server.errors import InvalidFields
from api.server.testing import as_file, drawn_face
from core.errors import FaceTooDark, SeveralFaces
from core.photos.framing import Place
from core.photos.records import PhotoWarning
from deploy.first_steps import DEMO_FACE

CONSENT = {"consent": "true"}


def add(client, subject, *photos):
    url = f"{subject['links']['self']}/photos"
    return client.post(url, files=[("photo", photo) for photo in photos], data=CONSENT)


def post(client, *photos, **fields):
    return client.post("/v1/subjects", files=[("photo", photo) for photo in photos], data=CONSENT | fields)


def test_every_photo_that_is_refused_is_named_with_its_reasons(client, photo, finder, store):
    finder.refusal = FaceTooDark("The face is in the dark.")
    answer = post(client, photo, b"no picture", photo)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (422, "face-too-dark", "photo")
    assert problem["detail"].startswith("Photo 1 of 3: ")
    found = [(each["photo"], each["code"], each["field"]) for each in problem["errors"]]
    assert found == [
        (0, "face-too-dark", "photo"),
        (1, "unsupported-media-type", "photo"),
        (2, "face-too-dark", "photo"),
    ]
    assert problem["errors"][0]["message"] == "The face is in the dark."
    assert list(store.list("")) == []


def test_of_several_faces_it_says_where_they_are(client, photo, finder):
    finder.refusal = SeveralFaces(count=2)
    problem = post(client, photo).json()
    assert problem["faces"] == 2
    assert problem["errors"][0]["faces"] == [{"left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.4}] * 2


def test_the_caller_chooses_by_number_or_box(client, photo, finder):
    assert post(client, photo, face="1").status_code == 202
    assert post(client, photo, photo, face="; 0.1, 0.2, 0.5, 1").status_code == 202
    assert finder.choices == [1, None, Place(0.1, 0.2, 0.5, 1.0)]


def test_warnings_stay_with_the_subject(client, photo, finder, personalized):
    finder.warnings = (PhotoWarning("eyes-covered", "The eyes are behind dark glasses."),)
    subject = post(client, photo, photo).json()
    warning = {"code": "eyes-covered", "message": "The eyes are behind dark glasses."}
    assert subject["warnings"] == [{"photo": 0, **warning}, {"photo": 1, **warning}]
    personalized(subject["job_id"])
    assert client.get(subject["links"]["self"]).json()["warnings"] == subject["warnings"]
    assert client.get("/v1/subjects").json()["subjects"][0]["warnings"] == subject["warnings"]
    finder.warnings = ()
    assert add(client, subject, photo).json()["warnings"] == subject["warnings"]


def test_warnings_about_later_photos_go_on_counting(client, photo, finder, personalized):
    subject = post(client, photo, photo).json()
    personalized(subject["job_id"])
    finder.warnings = (PhotoWarning("eyes-covered", "The eyes are behind dark glasses."),)
    more = add(client, subject, photo).json()
    assert [warning["photo"] for warning in more["warnings"]] == [2]
    assert client.get(subject["links"]["self"]).json()["warnings"] == more["warnings"]


def test_photos_that_are_refused_leave_no_warnings(client, photo, finder, personalized):
    subject = post(client, photo).json()
    personalized(subject["job_id"])
    finder.warnings = (PhotoWarning("eyes-covered", "The eyes are behind dark glasses."),)
    assert add(client, subject, photo, b"no picture").status_code == 415
    assert client.get(subject["links"]["self"]).json()["warnings"] == []


@pytest.mark.parametrize("text", ["left", "1;2;3", "-1", "0.1,0.2,0.3", "0.5,0,0.4,1", "0,0,1,2", "1.2.3,0,1,1"])
def test_a_choice_that_cannot_be_one_is_refused(text):
    with pytest.raises(InvalidFields) as refused:
        read_choices(text, 2)
    assert refused.value.field == "face"


def test_no_choice_is_needed():
    assert read_choices("", 2) == [None, None]
    assert read_choices(";;", 3) == [None, None, None]


@pytest.fixture
def real_client(settings, services):
    """A client of the application with the real check of photos."""
    return TestClient(create_app(settings, services=services), "http://127.0.0.1:8000", client=("127.0.0.1", 1))


def test_later_photos_must_show_the_person_of_those_that_were_kept(real_client, personalized, store):
    same, other = as_file(drawn_face(400)), DEMO_FACE.read_bytes()
    kept, dropped = (post(real_client, same, keep_photos=keep).json() for keep in ("true", "false"))
    for subject in (kept, dropped):
        personalized(subject["job_id"])
    before = dict(store.objects)
    refused = add(real_client, kept, same, other, other)
    assert refused.status_code == 422, refused.text
    assert [(each["photo"], each["code"]) for each in refused.json()["errors"]] == [
        (1, "different-people"),
        (2, "different-people"),
    ]
    assert add(real_client, kept, other).json()["code"] == "different-people"
    assert store.objects == before
    assert add(real_client, kept, same).status_code == 202
    assert add(real_client, dropped, other).status_code == 202, "there is nothing to compare it with"


def test_the_real_check_takes_the_face_that_was_chosen(real_client, store):
    both = Image.new("RGB", (800, 400), (110, 120, 128))
    both.paste(drawn_face(400), (0, 0))
    both.paste(drawn_face(400).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (400, 0))
    refused = post(real_client, as_file(both, "PNG")).json()
    assert (refused["code"], refused["faces"]) == ("several-faces", 2)
    boxes = refused["errors"][0]["faces"]
    right = max(range(2), key=lambda number: boxes[number]["left"])
    answer = post(real_client, as_file(both, "PNG"), face=str(right))
    assert answer.status_code == 202, answer.text
    assert [warning["code"] for warning in answer.json()["warnings"]] == ["other-faces"]
    assert len([key for key in store.list("") if key.endswith(".png")]) == 1
