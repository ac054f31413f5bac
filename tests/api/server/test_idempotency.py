from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.server import checked_photos, pending_responses
from api.server.checked_photos import CheckedPhoto
from api.server.testing import as_file, drawn_face
from core.errors import NoFace, StoreUnavailable
from core.photos.records import PhotoCheck
from core.tenants import idempotency as responses

PROMPT = "a pencil sketch of a [V] face"
CONSENT = {"consent": "true", "name": "Ada"}


def keyed(key="a-key", **more):
    return {"idempotency-key": key, **more}


def post_photo(client, photo, key="a-key", data=CONSENT, name="me.jpg"):
    return client.post("/v1/subjects", files={"photo": (name, photo)}, data=data, headers=keyed(key))


@pytest.fixture
def ask(client, subject_id):
    def ask(key="a-key", headers=None, **changes):
        asked = {"subject_id": subject_id, "prompt": PROMPT} | changes
        return client.post("/v1/generations", json=asked, headers=keyed(key) | (headers or {}))

    return ask


def assert_refused(answer, status, code, field=None):
    assert (answer.status_code, answer.json()["code"], answer.json().get("field")) == (status, code, field), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_same_request_gets_the_same_answer_and_makes_nothing(ask, store, notifier):
    first = ask()
    before, notified = list(store.list("")), list(notifier.notified)
    again = ask()
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert (list(store.list("")), notifier.notified) == (before, notified)


def test_photos_are_compared_by_what_is_in_them(client, photo, notifier):
    first, again = post_photo(client, photo), post_photo(client, photo, name="other.jpg")
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert len(notifier.notified) == 1
    assert_refused(post_photo(client, as_file(drawn_face(100))), 422, "idempotency-key-reused", "Idempotency-Key")
    assert_refused(
        post_photo(client, photo, data=CONSENT | {"name": "Eve"}), 422, "idempotency-key-reused", "Idempotency-Key"
    )
    assert post_photo(client, photo, key="another").json()["id"] != first.json()["id"]


def test_the_spacing_of_json_does_not_matter_but_its_content_does(client, ask, subject_id):
    first = ask()
    asked = {"prompt": PROMPT, "subject_id": subject_id}
    body = json.dumps(asked, indent=4)
    headers = keyed() | {"content-type": "application/json"}
    assert client.post("/v1/generations", content=body, headers=headers).content == first.content
    assert_refused(ask(n=2), 422, "idempotency-key-reused", "Idempotency-Key")
    assert client.post("/v1/generations", content=body, headers=headers).content == first.content


def test_a_key_belongs_to_its_route(client, ask, photo):
    assert ask().json()["id"].startswith("job_")
    assert post_photo(client, photo).json()["id"].startswith("sub_")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é".encode("latin-1"), b"\x7f"])
def test_keys_are_visible_ascii(client, subject_id, store, key):
    before = list(store.list(""))
    asked = {"subject_id": subject_id, "prompt": PROMPT}
    answer = client.post("/v1/generations", json=asked, headers=keyed(key))
    assert_refused(answer, 422, "invalid-input", "Idempotency-Key")
    assert list(store.list("")) == before


def test_the_longest_key_is_good(ask):
    assert ask("~" * 255).status_code == 202


def test_neither_key_nor_prompt_is_saved(ask, store):
    ask("a-very-secret-key")
    kept = [(key.encode(), store.get(key)) for key in store.list("idempotency/")]
    assert kept
    assert not any(word in piece for pair in kept for piece in pair for word in (b"a-very-secret-key", b"pencil"))


def test_an_answer_outlives_redis(ask, services):
    first = ask()
    services.redis.flushall()
    assert ask().content == first.content


@pytest.mark.parametrize("count", [100])
def test_many_at_once_make_one_job(ask, notifier, count):
    notified = len(notifier.notified)
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: ask(), range(count)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert [("idempotent-replayed" in answer.headers) for answer in answers].count(False) == 1
    assert len(notifier.notified) == notified + 1


def slow_finder(finder, monkeypatch):
    """A first request that is held until it is let go."""
    begun, go = threading.Event(), threading.Event()

    def crop(*_):
        begun.set()
        assert go.wait(20)
        return CheckedPhoto(PhotoCheck(), b"crop")

    monkeypatch.setattr(checked_photos, "check_upload", crop)
    return begun, go


def test_a_repeated_request_that_waits_too_long_is_told_to_come_back(client, photo, finder, monkeypatch):
    monkeypatch.setattr(pending_responses, "WAIT_SECONDS", 0.3)
    begun, go = slow_finder(finder, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post_photo, client, photo)
        assert begun.wait(20)
        waited = post_photo(client, photo)
        assert_refused(waited, 409, "request-in-progress")
        assert int(waited.headers["retry-after"]) >= 1
        assert waited.json()["retryable"] is True
        started = time.monotonic()
        other = post_photo(client, photo, data={"consent": "true"})
        assert_refused(other, 422, "idempotency-key-reused", "Idempotency-Key")
        assert time.monotonic() - started < 5
        go.set()
        assert first.result().status_code == 202
    assert post_photo(client, photo).content == first.result().content


def test_a_request_that_takes_longer_than_its_lock_is_still_the_only_one(client, photo, finder, monkeypatch):
    monkeypatch.setattr(pending_responses, "EXTEND_SECONDS", 0.2)
    monkeypatch.setattr(responses, "LOCK_SECONDS", 1)
    monkeypatch.setattr(pending_responses, "WAIT_SECONDS", 2.5)
    begun, go = slow_finder(finder, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post_photo, client, photo)
        assert begun.wait(20)
        assert_refused(post_photo(client, photo), 409, "request-in-progress")
        go.set()
        assert first.result().status_code == 202
    assert post_photo(client, photo).content == first.result().content


def test_what_was_refused_may_be_sent_again(client, photo, finder, ask):
    finder.refusal = NoFace("Send one.")
    assert_refused(post_photo(client, photo), 422, "no-face", "photo")
    finder.refusal = None
    assert post_photo(client, photo, data=CONSENT | {"consent": "false"}).status_code == 422
    assert post_photo(client, photo).status_code == 202
    assert ask(prompt="").status_code == 422
    assert ask().status_code == 202


def test_a_full_queue_and_a_mistake_of_ours_are_not_remembered(client, ask, services, monkeypatch):
    jobs = [ask(str(number)).json()["id"] for number in range(3)]
    assert_refused(ask("full"), 429, "queue-full")
    client.post(f"/v1/jobs/{jobs[0]}/cancel")
    assert ask("full").status_code == 202
    client.post(f"/v1/jobs/{jobs[1]}/cancel")

    def fail(*_, **__):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(services.subjects, "generate", fail)
        assert ask("broken").status_code == 500
    assert ask("broken").status_code == 202


def test_a_store_that_cannot_remember_does_not_spoil_the_answer(client, ask, monkeypatch):
    def fail(*_, **__):
        raise StoreUnavailable

    monkeypatch.setattr(client.app.state.saved_responses, "save", fail)
    assert ask().status_code == 202


def test_a_deleted_subjects_answers_are_blank(client, photo, store):
    subject = post_photo(client, photo).json()
    client.delete(f"/v1/subjects/{subject['id']}")
    assert_refused(post_photo(client, photo), 409, "answer-erased")
    for word in (b"Ada", subject["id"].encode()):
        assert not any(word in data for key, data in store.objects.items() if key.startswith("idempotency/"))
    assert post_photo(client, photo, key="anew").status_code == 202


def test_a_deleted_subjects_generations_are_blank_too(client, ask, subject_id):
    ask()
    client.delete(f"/v1/subjects/{subject_id}")
    assert_refused(ask(), 409, "answer-erased")


@pytest.mark.parametrize("body", [b"{", b"[" * 60_000, b'{"prompt": "\\ud800"}', b"\xff"])
def test_bodies_that_are_no_json_are_refused_as_ever(client, body):
    headers = keyed() | {"content-type": "application/json"}
    assert client.post("/v1/generations", content=body, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b", "text/plain"])
def test_bodies_that_are_no_form_are_refused_as_ever(client, kind):
    answer = client.post("/v1/subjects", content=b"--c\r\n", headers=keyed() | {"content-type": kind})
    assert answer.status_code in (400, 415)


def test_a_body_that_is_too_large_is_refused_as_ever(client):
    big = client.post("/v1/generations", content=bytes(70_000), headers=keyed() | {"content-type": "application/json"})
    assert_refused(big, 413, "upload-too-large")
    pieces = iter([bytes(2**20)] * 30)
    headers = keyed() | {"content-type": "multipart/form-data; boundary=b"}
    assert_refused(client.post("/v1/subjects", content=pieces, headers=headers), 413, "upload-too-large")


def test_every_creating_route_takes_a_key(client):
    """A POST that makes something (it says where) is safe to repeat; the document says so."""
    creating = 0
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        made = operations.get("post", {}).get("responses", {})
        if "Location" in made.get("202", made.get("201", {})).get("headers", {}):
            creating += 1
            names = [parameter["name"] for parameter in operations["post"]["parameters"]]
            assert "Idempotency-Key" in names, path
            assert "request-in-progress" in made["409"]["content"]["application/problem+json"]["examples"], path
            assert {"idempotency-key-reused", "invalid-input"} <= set(
                made["422"]["content"]["application/problem+json"]["examples"]
            ), path
    assert creating >= 2
