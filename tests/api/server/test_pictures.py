"""The list of pictures, their thumbnails, and the packs that batches take their prompts from."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from api.server.model_facts import model_packs
from api.server.testing import as_file, drawn_face
from core.batches.packs import MAX_PACKS
from core.settings import EMBEDDED_BUNDLE

PROMPTS = ["a pencil sketch of a [V] face", "an OIL painting of a [V] face", "a [V] face"]


@pytest.fixture
def made(client, subject_id, generated):
    """Pictures of three jobs, by the job's id, newest first."""
    jobs = {}
    for prompt in PROMPTS:
        body = {"subject_id": subject_id, "prompt": prompt, "n": 3, "seed": 10, "steps": 5}
        job = client.post("/v1/generations", json=body).json()
        jobs[job["id"]] = generated(job["id"])
    return dict(reversed(jobs.items()))


def listed(client, **params):
    """The ids of all pictures, over all pages, and how many pages there were."""
    ids, pages, cursor = [], 0, ""
    while cursor is not None:
        answer = client.get("/v1/images", params={**params, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        ids += [image["id"] for image in page["images"]]
        cursor, pages = page["next_cursor"], pages + 1
    return ids, pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9, 100])
def test_all_pictures_come_once_and_newest_first_whatever_the_size_of_a_page(client, made, limit):
    ids, _ = listed(client, limit=limit)
    assert ids == [image for images in made.values() for image in images]


def test_they_can_be_had_by_subject_job_and_prompt(client, made, subject_id):
    ids = [image for images in made.values() for image in images]
    job_id, of_job = next(iter(made.items()))
    assert listed(client, subject_id=subject_id, limit=2)[0] == ids
    assert listed(client, subject_id="sub_" + "0" * 25)[0] == []
    assert listed(client, job_id=job_id, limit=2)[0] == of_job
    assert listed(client, job_id="job_" + "0" * 25)[0] == []
    assert listed(client, prompt="oil PAINTING", limit=2)[0] == ids[3:6]
    assert listed(client, prompt="marble")[0] == []


def test_each_says_what_it_was_made_with(client, made, subject_id):
    job_id, images = next(iter(made.items()))
    found = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    assert (found["id"], found["job_id"], found["subject_ids"]) == (images[0], job_id, [subject_id])
    assert (found["prompt"], found["seed"], found["steps"], found["likeness"]) == (PROMPTS[2], 10, 5, None)
    assert client.get(found["thumbnail"]).content == client.get(found["url"]).content  # it is small already


def test_pictures_of_a_deleted_subject_are_gone(client, made, subject_id):
    client.delete(f"/v1/subjects/{subject_id}")
    assert listed(client) == ([], 1)


@pytest.mark.parametrize(
    "params", [{"cursor": "job_1"}, {"limit": 0}, {"subject_id": "x"}, {"job_id": "x"}, {"who": 1}]
)
def test_what_is_not_understood_is_refused(client, params):
    answer = client.get("/v1/images", params=params)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, next(iter(params)))


@pytest.mark.parametrize("accept", ["image/png", "image/webp"])
def test_a_thumbnail_keeps_what_the_picture_says_of_itself(client, made, accept):
    url = f"/v1/images/{next(iter(made.values()))[0]}"
    whole, small = (client.get(url, params=size, headers={"accept": accept}) for size in ({}, {"size": 32}))
    opened = Image.open(io.BytesIO(small.content))
    assert (opened.size, small.headers["content-type"]) == ((32, 32), accept)
    assert opened.info.keys() >= Image.open(io.BytesIO(whole.content)).info.keys()
    assert b"made with AI" in small.content
    assert client.get(url, params={"size": 4}).status_code == 422


def test_a_check_finds_everything_and_stores_nothing(client, store, finder, photo):
    before = dict(store.objects)
    files = [("photo", photo), ("photo", as_file(drawn_face(80)))]
    answer = client.post("/v1/photos/check", files=files)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["accepted"]
    assert [each["accepted"] for each in found["photos"]] == [True, True]
    assert found["photos"][0]["crop"].startswith("data:image/webp;base64,")
    assert store.objects == before


def test_a_check_says_of_each_photo_what_is_wrong_with_it(client, photo):
    answer = client.post("/v1/photos/check", files=[("photo", photo), ("photo", b"not a picture")])
    good, bad = answer.json()["photos"]
    assert (answer.status_code, answer.json()["accepted"], good["accepted"], bad["accepted"]) == (
        200,
        False,
        True,
        False,
    )
    assert (bad["crop"], bad["face"], bad["reasons"][0]["code"]) == (None, None, "unsupported-media-type")


@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"files": {"face": b"x"}}, 422),
        ({"data": {"face": "0"}, "files": {"other": b"x"}}, 422),
        ({"files": {"photo": b"x"}, "data": {"consent": "true"}}, 422),
        ({"files": {"photo": b"x"}, "data": {"face": "left"}}, 422),
        ({"json": {}}, 415),
    ],
)
def test_a_check_of_something_else_is_refused(client, send, status):
    answer = client.post("/v1/photos/check", **send)
    assert answer.status_code == status, answer.text


def test_packs_are_made_listed_read_and_deleted(client):
    of_model = [pack.id for pack in model_packs(str(EMBEDDED_BUNDLE))]
    made = client.post("/v1/packs", json={"name": "Drawn", "prompts": PROMPTS})
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/packs/{made.json()['id']}")
    packs = client.get("/v1/packs").json()["packs"]
    assert [pack["id"] for pack in packs] == [*of_model, made.json()["id"]]
    for pack in packs:
        assert client.get(f"/v1/packs/{pack['id']}").json() == pack
    assert client.delete(made.headers["location"]).status_code == 204
    assert client.delete(made.headers["location"]).json()["code"] == "pack-not-found"
    assert client.delete(f"/v1/packs/{of_model[0]}").json()["code"] == "pack-not-found"
    assert [pack["id"] for pack in client.get("/v1/packs").json()["packs"]] == of_model


def test_a_pack_runs_as_one_batch(client, subject_id):
    pack = client.get("/v1/packs").json()["packs"][0]
    assert len(pack["prompts"]) == 12
    batch = client.post("/v1/batches", json={"prompts": pack["prompts"], "subject_ids": [subject_id]})
    assert batch.json()["counts"]["total"] == 12


@pytest.mark.parametrize(
    "body", [{"name": "x", "prompts": []}, {"name": " ", "prompts": ["a"]}, {"name": "x", "prompts": ["a"] * 51}]
)
def test_a_pack_that_is_none_is_refused(client, body):
    assert client.post("/v1/packs", json=body).status_code == 422


def test_there_are_only_so_many_packs(client):
    for _ in range(MAX_PACKS):
        client.post("/v1/packs", json={"name": "x", "prompts": ["a"]})
    answer = client.post("/v1/packs", json={"name": "x", "prompts": ["a"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
