from __future__ import annotations

import io

import pytest
from PIL import Image

from api.server.requests import with_placeholder
from api.server.routes.images import prefers_webp

PROMPT = "a pencil sketch of a [V] face"


def assert_refused(answer, status, code, field=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json().get("field")) == (code, field)


@pytest.fixture
def ask(client, subject_id):
    def ask(**changes):
        return client.post("/v1/generations", json={"subject_id": subject_id, "prompt": PROMPT} | changes)

    return ask


def test_a_prompt_becomes_a_job_and_pictures(client, ask, job_service, generated):
    answer = ask(n=2, seed=7, steps=20, guidance_scale=5, width=64, height=128, negative_prompt="hat")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"]
    assert (job["kind"], job["status"], job["warnings"], job["images"]) == ("generate", "queued", [], None)
    request = job_service.archive.accepted("local", job["id"]).request
    assert (request.prompt, request.n, request.seed, request.steps) == (PROMPT, 2, 7, 20)
    assert (request.guidance_scale, request.width, request.height) == (5.0, 64, 128)
    generated(job["id"])
    done = client.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded"
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert "cancel" not in {name for name, link in done["links"].items() if link}


def test_the_placeholder_is_added_and_that_is_said(ask, job_service):
    job = ask(prompt="a pencil sketch").json()
    assert len(job["warnings"]) == 1
    assert job_service.archive.accepted("local", job["id"]).request.prompt == "a pencil sketch of a [V] face"
    assert with_placeholder("a [v] face", "face") == ("a [V] face", [])


def test_a_seed_is_drawn_when_none_is_given(ask, job_service):
    seeds = {job_service.archive.accepted("local", ask().json()["id"]).request.seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_subject_that_is_not_ready_is_a_conflict(client, photo, store):
    subject = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    before = list(store.list(""))
    for stage in ("refined", "preview"):
        asked = {"subject_id": subject["id"], "prompt": PROMPT, "stage": stage}
        assert_refused(client.post("/v1/generations", json=asked), 409, "subject-not-ready")
    assert list(store.list("")) == before


def test_the_preview_can_be_asked_for(ask, job_service):
    job = ask(stage="preview").json()
    assert job_service.archive.accepted("local", job["id"]).request.weights_key.endswith("preview.lidb")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "   "}, "prompt"),
        ({"prompt": "x" * 10_000}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": 1000}, "steps"),
        ({"steps": "20"}, "steps"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": 31}, "guidance_scale"),
        ({"width": 65}, "width"),
        ({"width": 16}, "width"),
        ({"height": 2048}, "height"),
        ({"negative_prompt": "x" * 1001}, "negative_prompt"),
        ({"stage": "final"}, "stage"),
        ({"subject_id": 5}, "subject_id"),
        ({"subject_id": None}, "subject_id"),
        ({"blend": [{"subject_id": "a", "weight": 1}, {"subject_id": "b", "weight": 1}]}, "subject_id"),
        ({"subject_id": None, "blend": [{"subject_id": "a", "weight": 1}]}, "blend"),
        ({"subject_id": None, "blend": [{"subject_id": "a", "weight": 1}] * 9}, "blend"),
        ({"subject_id": None, "blend": [{"subject_id": "a", "weight": 1}, {"subject_id": "b"}]}, "blend.1.weight"),
        ({"subject_id": None, "blend": [{"subject_id": "a", "weight": 0}] * 2}, "blend.0.weight"),
        ({"subject_id": None, "blend": [{"subject_id": "a", "weight": -1}] * 2}, "blend.0.weight"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_stored(ask, store, changes, field):
    before = list(store.list(""))
    answer = ask(**changes)
    assert_refused(answer, 422, "invalid-input", field)
    assert "x" * 50 not in answer.text, "what was sent is not repeated: it may be a prompt"
    assert list(store.list("")) == before


@pytest.mark.parametrize("body", [b"", b"{", b'{"prompt": NaN', b"[]", b'"text"', b"\xff\xfe"])
def test_bodies_that_are_no_request_are_refused(client, store, body):
    answer = client.post("/v1/generations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(store.list("")) == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"\\ud800"'])
def test_values_that_json_should_not_have_are_refused(client, subject_id, value):
    body = f'{{"subject_id": "{subject_id}", "prompt": "a [V] face", "guidance_scale": {value}}}'
    answer = client.post("/v1/generations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_other_bodies_are_a_415(client):
    assert_refused(client.post("/v1/generations", data={"prompt": "x"}), 415, "unsupported-media-type")
    assert_refused(client.post("/v1/generations", content=b"{}"), 415, "unsupported-media-type")


@pytest.mark.parametrize("identifier", ["sub_" + "0" * 25, "../../etc", "x"])
def test_an_unknown_subject_is_a_404(client, store, identifier):
    answer = client.post("/v1/generations", json={"subject_id": identifier, "prompt": PROMPT})
    assert_refused(answer, 404, "subject-not-found")
    assert list(store.list("")) == []


def test_pictures_are_png_or_webp_with_the_same_pixels(client, ask, generated):
    (picture,) = generated(ask().json()["id"])
    png = client.get(f"/v1/images/{picture}")
    webp = client.get(f"/v1/images/{picture}", headers={"accept": "image/webp"})
    assert (png.headers["content-type"], webp.headers["content-type"]) == ("image/png", "image/webp")
    assert png.headers["vary"] == "Accept"
    with Image.open(io.BytesIO(png.content)) as one, Image.open(io.BytesIO(webp.content)) as other:
        assert one.info["Description"] == PROMPT
        for said in (PROMPT, "made with AI", "Seed: "):
            assert said in other.getexif()[0x010E]
        assert b"trainedAlgorithmicMedia" in other.info["xmp"]
        assert one.convert("RGB").tobytes() == other.convert("RGB").tobytes()
    again = client.get(f"/v1/images/{picture}", headers={"if-none-match": png.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("identifier", ["img_" + "0" * 25 + "-0", "img_x", "..", "img_" + "0" * 25])
def test_unknown_pictures_are_404(client, identifier):
    assert client.get(f"/v1/images/{identifier}").status_code == 404


@pytest.mark.parametrize(
    ("accept", "webp"),
    [
        ("*/*", False),
        ("image/*", False),
        ("image/png, image/webp;q=0.5", False),
        ("image/webp;q=0", False),
        ("image/webp;q=rubbish", False),
        ("image/webp", True),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", True),
        ("", False),
    ],
)
def test_webp_is_for_those_who_name_it(accept, webp):
    assert prefers_webp(accept) is webp


def test_pictures_go_with_their_subject(client, ask, generated, subject_id, store):
    (picture,) = generated(ask().json()["id"])
    client.delete(f"/v1/subjects/{subject_id}")
    assert client.get(f"/v1/images/{picture}").status_code == 404
    left = [key for key in store.list("") if not key.startswith(("erasures/", "erasing/"))]
    assert all(key.startswith("usage/") and subject_id not in key for key in left)
