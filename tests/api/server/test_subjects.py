from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from core.errors import FaceTooBlurred, FaceTooBright, FaceTooDark, FaceTooSmall, FaceTurnedAway, NoFace, SeveralFaces
from core.records import JobKind

CONSENT = {"consent": "true"}


def post(client, photo, data=CONSENT, **more):
    return client.post("/v1/subjects", files={"photo": ("me.jpg", photo, "image/jpeg")}, data=data, **more)


def assert_refused(answer, status, code, field=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["type"].endswith(code)
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body.get("field") == field
    return body


def test_a_photo_becomes_a_subject_and_a_job(client, photo, store, notifier):
    fields = {"consent": "true", "name": "Ada", "class_noun": "face", "options": '{"rank": 2, "steps": 7, "seed": 3}'}
    answer = post(client, photo, fields)
    assert answer.status_code == 202, answer.text
    subject = answer.json()
    assert answer.headers["location"] == f"/v1/subjects/{subject['id']}"
    assert subject["status"] == "personalizing"
    assert subject["name"] == "Ada"
    assert subject["consent"]["version"]
    assert subject["consent"]["at"].endswith("Z")
    assert notifier.notified == [("personalize", f"local/{subject['job_id']}")]
    assert client.get(answer.headers["location"]).json()["id"] == subject["id"]
    job = client.get(subject["links"]["job"]).json()
    assert (job["kind"], job["status"], job["position"]) == ("personalize", "queued", 0)
    crops = [store.get(key) for key in store.list("") if key.endswith(".png")]
    with Image.open(io.BytesIO(crops[0])) as crop:
        assert (len(crops), crop.format, crop.size) == (1, "PNG", (96, 96))
    assert not any(photo in data for data in store.objects.values())


def test_options_reach_the_request(client, archive, photo):
    subject = post(client, photo, {"consent": "true", "options": '{"rank": 2, "steps": 7, "seed": 3}'}).json()
    request = archive.accepted("local", subject["job_id"]).request
    assert (request.rank, request.steps, request.seed) == (2, 7, 3)


def test_several_photos_of_one_person(client, photo):
    files = [("photo", ("1.jpg", photo)), ("photo", ("2.jpg", photo))]
    answer = client.post("/v1/subjects", files=files, data=CONSENT)
    assert answer.json()["photos_kept"] == 2


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (NoFace("Send one."), "no-face"),
        (SeveralFaces(count=2), "several-faces"),
        (FaceTooSmall("Come closer."), "face-too-small"),
        (FaceTooBlurred("Hold still."), "face-too-blurred"),
        (FaceTurnedAway("Look here."), "face-turned-away"),
        (FaceTooDark("Draw the curtains."), "face-too-dark"),
        (FaceTooBright("Leave the sun."), "face-too-bright"),
    ],
)
def test_a_photo_without_a_good_face_is_refused_and_not_stored(client, photo, finder, store, notifier, refusal, code):
    finder.refusal = refusal
    body = assert_refused(post(client, photo), 422, code, "photo")
    assert body.get("faces") == (2 if code == "several-faces" else None)
    assert list(store.list("")) == []
    assert notifier.notified == []


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", 415, "unsupported-media-type"),
        (b"just text", 415, "unsupported-media-type"),
        (b"", 415, "unsupported-media-type"),
        (b"\xff\xd8\xff\xe0 and then nothing", 422, "image-broken"),
        (b"\xff\xd8\xff" + bytes(11 * 2**20), 413, "upload-too-large"),
    ],
    ids=["pdf", "text", "nothing", "rubbish", "11 MB"],
)
def test_what_is_no_good_picture_is_refused_and_not_stored(client, store, data, status, code):
    assert_refused(post(client, data), status, code, "photo")
    assert list(store.list("")) == []


def test_a_truncated_photo_is_refused(client, store, photo):
    assert_refused(post(client, photo[: len(photo) // 2]), 422, "image-broken", "photo")
    assert list(store.list("")) == []


@pytest.mark.parametrize("declared", [True, False])
def test_40_megabytes_are_refused(client, store, declared):
    """With a length in the header, and without one, when they come in pieces."""
    head = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n\r\n\xff\xd8\xff'
    pieces = [head, *[bytes(2**20)] * 40, b"\r\n--b--\r\n"]
    body = b"".join(pieces) if declared else iter(pieces)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_refused(client.post("/v1/subjects", content=body, headers=headers), 413, "upload-too-large")
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "consent"),
        ({"consent": "false"}, "consent"),
        (CONSENT | {"name": " "}, "name"),
        (CONSENT | {"name": "x" * 101}, "name"),
        (CONSENT | {"class_noun": "face]; drop"}, "class_noun"),
        (CONSENT | {"colour": "red"}, "colour"),
        (CONSENT | {"options": '{"steps": 0}'}, "options.steps"),
        (CONSENT | {"options": '{"steps": 1000}'}, "options.steps"),
        (CONSENT | {"options": '{"steps": "40"}'}, "options.steps"),
        (CONSENT | {"options": '{"rank": 17}'}, "options.rank"),
        (CONSENT | {"options": '{"seed": -1}'}, "options.seed"),
        (CONSENT | {"options": '{"speed": 1}'}, "options.speed"),
        (CONSENT | {"options": "steps=40"}, "options"),
        (CONSENT | {"options": "[]"}, "options"),
    ],
)
def test_wrong_fields_are_named(client, photo, store, fields, field):
    assert_refused(post(client, photo, fields), 422, "invalid-input", field)
    assert list(store.list("")) == []


def test_a_photo_is_needed_and_nothing_else_is_a_file(client, photo, store):
    none = client.post("/v1/subjects", files={"name": (None, "Ada")}, data=CONSENT)
    assert_refused(none, 422, "invalid-input", "photo")
    extra = client.post("/v1/subjects", files={"photo": photo, "name": ("n.txt", b"Ada")}, data=CONSENT)
    assert_refused(extra, 422, "invalid-input", "name")
    text = client.post("/v1/subjects", files={"photo": (None, "text")}, data=CONSENT)
    assert_refused(text, 422, "invalid-input", "photo")
    assert_refused(post(client, photo, {"consent": ["true", "true"]}), 422, "invalid-input", "consent")
    assert list(store.list("")) == []


def test_other_bodies_are_refused(client):
    assert_refused(client.post("/v1/subjects", json={"consent": True}), 415, "unsupported-media-type")
    headers = {"content-type": "multipart/form-data"}
    assert_refused(client.post("/v1/subjects", content=b"x", headers=headers), 400, "malformed-request")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_refused(client.post("/v1/subjects", content=b"--c\r\n", headers=headers), 400, "malformed-request")


def test_a_full_queue_says_when_to_come_back(client, photo, store):
    for _ in range(3):
        assert post(client, photo).status_code == 202
    before = list(store.list(""))
    answer = post(client, photo)
    assert_refused(answer, 429, "queue-full")
    assert int(answer.headers["retry-after"]) >= 1
    assert list(store.list("")) == before


def test_a_service_that_is_full_of_others_jobs_says_so(client, photo, store, services, monkeypatch):
    monkeypatch.setattr(services.jobs._ledger, "limits", replace(services.jobs._ledger.limits, queue_total=1))
    assert post(client, photo).status_code == 202
    before = list(store.list(""))
    answer = post(client, photo)
    assert_refused(answer, 503, "service-busy")
    assert int(answer.headers["retry-after"]) >= 1
    assert list(store.list("")) == before


def test_lists_come_in_pages(client, photo):
    made = [post(client, photo).json()["id"] for _ in range(3)]
    first = client.get("/v1/subjects", params={"limit": 2}).json()
    second = client.get("/v1/subjects", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [subject["id"] for subject in first["subjects"] + second["subjects"]] == made[::-1]
    assert second["next_cursor"] is None
    assert_refused(client.get("/v1/subjects", params={"limit": 101}), 422, "invalid-input", "limit")
    assert_refused(client.get("/v1/subjects", params={"cursor": "../x"}), 422, "invalid-input", "cursor")


@pytest.mark.parametrize("identifier", ["sub_nobody", "x", "..", "..%2F..%2Fetc", "sub_" + "0" * 25, "%00"])
def test_unknown_subjects_are_404(client, identifier):
    for answer in (
        client.get(f"/v1/subjects/{identifier}"),
        client.get(f"/v1/subjects/{identifier}/weights"),
        client.delete(f"/v1/subjects/{identifier}"),
    ):
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"


def test_deletion_leaves_nothing_and_can_be_repeated(client, photo, ledger, store):
    subject = post(client, photo, CONSENT | {"name": "Ada"}).json()
    path = f"/v1/subjects/{subject['id']}"
    receipt = client.delete(path)
    assert receipt.status_code == 202
    assert receipt.json()["job_ids"] == [subject["job_id"]]
    assert_refused(client.get(path), 404, "subject-not-found")
    assert_refused(client.get(f"/v1/jobs/{subject['job_id']}"), 404, "job-not-found")
    assert client.delete(path).json() == receipt.json()
    assert [key for key in store.list("") if not key.startswith(("erasures/", "erasing/"))] == []
    assert ledger.queued(JobKind.PERSONALIZE) == 0


def test_weights_are_there_when_personalizing_has_succeeded(client, photo, personalized):
    subject = post(client, photo).json()
    path = f"/v1/subjects/{subject['id']}"
    assert_refused(client.get(f"{path}/weights"), 409, "subject-not-ready")
    personalized(subject["job_id"])
    ready = client.get(path).json()
    assert ready["status"] == "ready"
    assert ready["likeness"] == pytest.approx(0.5)
    assert (ready["likeness_by"], ready["tries"]) == ({"bundle": 0.5}, 1)
    weights = client.get(ready["weights"]["url"])
    assert weights.content == b"refined"
    assert weights.headers["content-type"] == "application/octet-stream"
    again = client.get(ready["weights"]["url"], headers={"if-none-match": weights.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{path}/weights", params={"stage": "preview"}).content == b"preview"
    assert_refused(client.get(f"{path}/weights", params={"format": "ckpt"}), 422, "invalid-input", "format")


def test_progress_shows_in_the_subject(client, photo, claim):
    subject = post(client, photo).json()
    claim(subject["job_id"]).at("finetune", 7, 40)
    seen = client.get(f"/v1/subjects/{subject['id']}").json()
    assert (seen["stage"], seen["step"], seen["total"]) == ("finetune", 7, 40)


def test_a_preview_can_be_seen_and_used_while_finetuning_runs(client, photo, claim):
    subject = post(client, photo).json()
    path, asked = f"/v1/subjects/{subject['id']}", {"subject_id": subject["id"], "prompt": "[V]", "stage": "preview"}
    held = claim(subject["job_id"])
    assert client.get(path).json()["preview"] is None
    assert_refused(client.post("/v1/generations", json=asked), 409, "subject-not-ready")
    held.show()
    seen = client.get(path).json()
    assert (seen["status"], seen["preview_ready"]) == ("personalizing", True)
    assert seen["preview"] == client.get(f"/v1/jobs/{subject['job_id']}").json()["preview"]
    picture = client.get(seen["preview"]["url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert client.get(f"{path}/weights", params={"stage": "preview"}).content == b"preview"
    assert_refused(client.get(f"{path}/weights"), 409, "subject-not-ready")
    assert client.post("/v1/generations", json=asked).status_code == 202
    assert_refused(client.post("/v1/generations", json=asked | {"stage": "refined"}), 409, "subject-not-ready")
    assert client.delete(path).status_code == 202
    assert_refused(client.get(seen["preview"]["url"]), 404, "image-not-found")
