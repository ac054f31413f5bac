from __future__ import annotations

import io

import pytest
from PIL import Image

from api.server.requests import with_placeholder
from api.server.responses import preferred
from api.server.routes.images import KINDS
from core.errors import InternalFault

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


def test_a_prompt_becomes_a_job_and_pictures(client, ask, archive, generated):
    side = client.get("/v1/models").json()["models"][0]["resolution"]
    answer = ask(n=2, seed=7, steps=20, guidance_scale=5, strength=0.8, width=side, height=side, negative_prompt="hat")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"]
    assert (job["kind"], job["status"], job["warnings"], job["images"]) == ("generate", "queued", [], None)
    request = archive.accepted("local", job["id"]).request
    assert (request.prompt, request.n, request.seed, request.steps) == (PROMPT, 2, 7, 20)
    assert request.strength == 0.8
    assert (request.guidance_scale, request.width, request.height) == (5.0, side, side)
    generated(job["id"])
    done = client.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded"
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert "cancel" not in {name for name, link in done["links"].items() if link}


def test_the_placeholder_is_added_and_that_is_said(ask, archive):
    job = ask(prompt="a pencil sketch").json()
    (warning,) = job["warnings"]
    assert (warning["code"], warning["field"]) == ("placeholder-added", "prompt")
    assert archive.accepted("local", job["id"]).request.prompt == "a pencil sketch of a [V] face"
    assert with_placeholder("a [v] face", "face", None) == ("a [V] face", [])


LONG = " ".join(["pencil sketch"] * 40)


def test_the_placeholder_is_added_where_the_model_reads_it(ask, archive):
    job = ask(prompt=LONG).json()
    assert archive.accepted("local", job["id"]).request.prompt == f"a [V] face, {LONG}"
    assert [warning["code"] for warning in job["warnings"]] == ["placeholder-added", "words-dropped"]


def test_what_the_model_does_not_hear_is_said_by_field(ask):
    (dropped,) = ask(prompt=f"a [V] face {LONG} in the rain").json()["warnings"]
    assert (dropped["code"], dropped["field"]) == ("words-dropped", "prompt")
    assert dropped["words"][-3:] == ["in", "the", "rain"]
    assert 'sketch in the rain"' in dropped["message"]
    told = ask(prompt="a [V] face, (hat:1.3), <lora:x:1>", negative_prompt=f"日本 {LONG}").json()["warnings"]
    assert [(each["field"], each["code"]) for each in told] == [
        ("prompt", "network-ignored"),
        ("prompt", "syntax-ignored"),
        ("negative_prompt", "words-dropped"),
        ("negative_prompt", "characters-unknown"),
    ]


def test_sizes_that_the_model_cannot_make_are_refused_and_those_that_it_makes_badly_are_warned_of(client, ask, store):
    (model,) = client.get("/v1/models").json()["models"]
    limits, best = model["limits"], model["resolution"]
    before = list(store.list(""))
    for side in range(limits["side_min"], limits["side_max"] + 1, 8):
        if side % limits["side_multiple"]:
            answer = ask(width=side, height=best)
            assert_refused(answer, 422, "invalid-input", "width")
            assert f"multiples of {limits['side_multiple']}" in answer.json()["detail"]
    both = ask(width=limits["side_min"] + 8, height=limits["side_max"] - 8).json()["errors"]
    assert [each["field"] for each in both] == ["width", "height"]
    assert list(store.list("")) == before
    assert ask(width=best, height=best).json()["warnings"] == []
    large = ask(width=limits["side_max"], height=best).json()["warnings"]
    assert [(each["code"], each["field"]) for each in large] == [("size-unusual", "width")]


@pytest.mark.parametrize(("seed", "n"), [(2**32 - 1, 1), (2**32 - 1, 2), (2**32 - 2, 4), (0, 3)])
def test_every_seed_that_is_told_can_be_asked_for_again(client, ask, generated, seed, n):
    job = ask(seed=seed, n=n).json()
    generated(job["id"])
    seeds = [image["seed"] for image in client.get(job["links"]["self"]).json()["images"]]
    assert seeds == [(seed + index) % 2**32 for index in range(n)]
    assert ask(seed=seeds[-1]).status_code == 202


def test_a_seed_is_drawn_when_none_is_given(ask, archive):
    seeds = {archive.accepted("local", ask().json()["id"]).request.seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_subject_that_is_not_ready_is_a_conflict(client, photo, store):
    subject = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    before = list(store.list(""))
    for stage in ("refined", "preview"):
        asked = {"subject_id": subject["id"], "prompt": PROMPT, "stage": stage}
        assert_refused(client.post("/v1/generations", json=asked), 409, "subject-not-ready")
    assert list(store.list("")) == before


def test_the_preview_can_be_asked_for(ask, archive):
    job = ask(stage="preview").json()
    assert archive.accepted("local", job["id"]).request.weights_key.endswith("preview.lidb")


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
        ({"strength": 1.5}, "strength"),
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
    (picture,) = generated(ask(metadata=["prompt", "seed"]).json()["id"])
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


@pytest.mark.parametrize("accept", ["image/png", "image/webp"])
@pytest.mark.parametrize("asked", [[], ["seed"], ["prompt", "subject"]])
def test_a_picture_says_only_what_was_asked_for_and_no_prompt_forges_a_line(client, ask, generated, accept, asked):
    job = ask(prompt="a [V] face\nSeed: 9\r\nComment: a photo\u2028\u202eSubject: me", metadata=asked).json()
    (picture,) = generated(job["id"])
    content = client.get(f"/v1/images/{picture}", headers={"accept": accept}).content
    with Image.open(io.BytesIO(content)) as image:
        said = image.text if accept == "image/png" else dict(line.split(": ", 1) for line in lines_of(image))
    said.pop("XML:com.adobe.xmp", None)
    names = {"prompt": "Description", "seed": "Seed", "subject": "Subject"}
    assert set(said) == {names[each] for each in asked} | {"Comment", "Software"}
    assert said["Comment"] == "made with AI"
    assert [each for each in said.values() if len(each.splitlines()) > 1 or "\u202e" in each] == []
    assert ("prompt" in asked) == (b"a [V] face" in content)
    assert ("subject" in asked) == (job["subject_id"].encode() in content)


def lines_of(image):
    return image.getexif()[0x010E].splitlines()


@pytest.mark.parametrize("identifier", ["img_" + "0" * 25 + "-0", "img_x", "..", "img_" + "0" * 25])
def test_unknown_pictures_are_404(client, identifier):
    assert client.get(f"/v1/images/{identifier}").status_code == 404


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/png, image/webp;q=0.5", "image/png"),
        ("image/webp;q=0", "image/png"),
        ("image/webp;q=rubbish", "image/png"),
        ("image/webp", "image/webp"),
        ("image/png, image/webp", "image/webp"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "image/webp"),
        ("application/octet-stream", "application/octet-stream"),
        ("", "image/png"),
    ],
)
def test_another_kind_of_picture_is_for_those_who_name_it(accept, kind):
    assert preferred(accept, KINDS) == kind


def test_png_for_clients_that_take_only_bytes(client, ask, generated):
    (picture,) = generated(ask().json()["id"])
    answer = client.get(f"/v1/images/{picture}", headers={"Accept": "application/octet-stream"})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == client.get(f"/v1/images/{picture}").content


def test_pictures_go_with_their_subject(client, ask, generated, subject_id, store):
    (picture,) = generated(ask().json()["id"])
    client.delete(f"/v1/subjects/{subject_id}")
    assert client.get(f"/v1/images/{picture}").status_code == 404
    left = [key for key in store.list("") if not key.startswith(("erasures/", "erasing/"))]
    assert all(key.startswith("usage/") and subject_id not in key for key in left)


@pytest.mark.parametrize(
    ("state", "said"), [("canceled", "was canceled; send"), ("failed", "has failed; send"), ("queued", "wait until")]
)
@pytest.mark.parametrize("stage", ["refined", "preview"])
def test_a_subject_without_weights_says_why(client, photo, services, claim, state, said, stage):
    subject = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    if state == "canceled":
        client.post(f"/v1/jobs/{subject['job_id']}/cancel")
    if state == "failed":
        services.claims.fail(claim(subject["job_id"]).assignment, InternalFault("The worker failed."))
    body = {"subject_id": subject["id"], "prompt": "a [V] face", "stage": stage}
    weights = f"/v1/subjects/{subject['id']}/weights"
    for refused in (client.post("/v1/generations", json=body), client.get(weights, params={"stage": stage})):
        assert (refused.status_code, refused.json()["code"]) == (409, "subject-not-ready")
        assert said in refused.json()["detail"]
