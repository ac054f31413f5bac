from __future__ import annotations

import pytest

from api.server.app import create_app
from core.errors import NoFace
from tests.api.server.test_subjects import CONSENT, assert_refused, post


def add(client, subject_id, *photos, data=CONSENT, **more):
    files = [("photo", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
    return client.post(f"/v1/subjects/{subject_id}/photos", files=files, data=data, **more)


def test_more_photos_make_better_weights(client, photo, subject_id, store, personalized, notifier):
    answer = add(client, subject_id, photo, photo, data=CONSENT | {"options": '{"steps": 5}'})
    assert answer.status_code == 202, answer.text
    subject = answer.json()
    assert answer.headers["location"] == subject["links"]["job"]
    assert (subject["id"], subject["status"], subject["refining"]) == (subject_id, "ready", True)
    assert (subject["photos_kept"], subject["photos_sent"]) == (2, 3)
    assert notifier.notified[-1] == ("personalize", f"local/{subject['job_id']}")
    asked = {"subject_id": subject_id, "prompt": "a [V] face"}
    assert client.post("/v1/generations", json=asked).status_code == 202
    assert client.get(subject["weights"]["url"]).content == b"refined"
    personalized(subject["job_id"])
    after = client.get(f"/v1/subjects/{subject_id}").json()
    assert (after["status"], after["refining"], after["photos_kept"], after["error"]) == ("ready", False, 0, None)
    assert not [key for key in store.list("") if "/photos/" in key]


def test_progress_shows_in_the_subject(client, photo, subject_id, claim):
    job_id = add(client, subject_id, photo).json()["job_id"]
    claim(job_id).at("finetune", 3, 9)
    seen = client.get(f"/v1/subjects/{subject_id}").json()
    assert (seen["status"], seen["stage"], seen["step"], seen["total"]) == ("ready", "finetune", 3, 9)


def test_while_it_is_personalized_no_photos_are_taken(client, photo, store):
    subject = post(client, photo).json()
    before = dict(store.objects)
    body = assert_refused(add(client, subject["id"], photo), 409, "subject-busy")
    assert subject["job_id"] in body["detail"]
    assert store.objects == before


def test_photos_are_kept_when_that_is_asked_for(client, photo, personalized, archive):
    subject = post(client, photo, CONSENT | {"keep_photos": "true"}).json()
    personalized(subject["job_id"])
    assert client.get(f"/v1/subjects/{subject['id']}").json()["photos_kept"] == 1
    more = add(client, subject["id"], photo).json()
    request = archive.accepted("local", more["job_id"]).request
    assert (len(request.photos), request.start_key) == (2, "")
    personalized(more["job_id"])
    last = add(client, subject["id"], photo, data=CONSENT | {"keep_photos": "false"}).json()
    personalized(last["job_id"])
    assert client.get(f"/v1/subjects/{subject['id']}").json()["photos_kept"] == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "consent"),
        ({"consent": "false"}, "consent"),
        (CONSENT | {"keep_photos": "ever"}, "keep_photos"),
        (CONSENT | {"name": "Ada"}, "name"),
        (CONSENT | {"options": '{"speed": 1}'}, "options.speed"),
    ],
)
def test_wrong_fields_are_named(client, photo, subject_id, store, fields, field):
    before = dict(store.objects)
    assert_refused(add(client, subject_id, photo, data=fields), 422, "invalid-input", field)
    assert store.objects == before


def test_photos_are_checked_and_counted(client, photo, subject_id, finder, store):
    before = dict(store.objects)
    finder.refusal = NoFace("Send one.")
    assert_refused(add(client, subject_id, photo), 422, "no-face", "photo")
    finder.refusal = None
    assert_refused(add(client, subject_id), 415, "unsupported-media-type")
    assert_refused(client.post(f"/v1/subjects/{subject_id}/photos", json={}), 415, "unsupported-media-type")
    text = client.post(f"/v1/subjects/{subject_id}/photos", files={"photo": (None, "x")}, data=CONSENT)
    assert_refused(text, 422, "invalid-input", "photo")
    assert_refused(add(client, subject_id, *[photo] * 9), 400, "malformed-request")
    assert store.objects == before


def test_a_subject_has_24_photos_at_most(client, photo, subject_id, personalized, finder):
    for _ in range(2):
        personalized(add(client, subject_id, *[photo] * 8).json()["job_id"])
    seen = len(finder.seen)
    body = assert_refused(add(client, subject_id, *[photo] * 8), 422, "invalid-input", "photo")
    assert "send 7 at most" in body["detail"]
    assert len(finder.seen) == seen, "it is said before the work"


def test_the_same_request_is_carried_out_once(client, photo, subject_id, notifier):
    headers = {"idempotency-key": "photos-1"}
    first = add(client, subject_id, photo, headers=headers)
    again = add(client, subject_id, photo, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert notifier.notified[-1] == ("personalize", f"local/{first.json()['job_id']}")
    assert len([each for each in notifier.notified if each == notifier.notified[-1]]) == 1


@pytest.mark.parametrize("identifier", ["sub_nobody", "x", "sub_" + "0" * 25])
def test_unknown_subjects_are_404(client, photo, identifier):
    assert_refused(add(client, identifier, photo), 404, "subject-not-found")


def test_deletion_wins(client, photo, subject_id, store):
    job_id = add(client, subject_id, photo).json()["job_id"]
    assert job_id in client.delete(f"/v1/subjects/{subject_id}").json()["job_ids"]
    assert [key for key in store.list("") if not key.startswith(("erasures/", "erasing/", "usage/"))] == []


def test_as_many_photos_are_decoded_at_once_as_the_settings_say(client, settings):
    assert client.app.state.decoders.total_tokens == settings.photo_decoders == 1
    larger = create_app(settings.model_copy(update={"photo_decoders": 3}))
    assert larger.state.decoders.total_tokens == 3
