from __future__ import annotations

import io

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from api.server.requests import shares_of
from hyperdreambooth.schemas import BlendPart

PROMPT = "a pencil sketch of a [V] face"


@pytest.fixture
def people(client, photo, personalized):
    """Three subjects that are ready."""
    made = []
    for _ in range(3):
        answer = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
        personalized(answer["job_id"])
        made.append(answer["id"])
    return made


@pytest.fixture
def blend(client):
    def blend(*parts, **changes):
        named = [{"subject_id": subject_id, "weight": weight} for subject_id, weight in parts]
        return client.post("/v1/generations", json={"blend": named, "prompt": PROMPT} | changes)

    return blend


def test_a_blend_becomes_a_job_of_all_its_subjects(client, services, people, blend, generated, archive):
    answer = blend((people[0], 3), (people[1], 1), n=2, seed=5)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["subject_id"], job["subject_ids"]) == (people[0], people[:2])
    request = archive.accepted("local", job["id"]).request
    assert [(share.subject_id, share.weight) for share in request.blend] == [(people[0], 0.75), (people[1], 0.25)]
    keys = [services.subjects.get("local", name).weights.refined_key for name in people[:2]]
    assert [share.weights_key for share in request.blend] == keys
    generated(job["id"])
    done = client.get(f"/v1/jobs/{job['id']}").json()
    assert (done["status"], done["subject_ids"]) == ("succeeded", people[:2])
    assert [image["seed"] for image in done["images"]] == [5, 6]
    with Image.open(io.BytesIO(client.get(done["images"][0]["url"]).content)) as picture:
        assert picture.info["Comment"] == "made with AI"


def test_a_job_of_one_subject_says_so_as_well(client, people):
    job = client.post("/v1/generations", json={"subject_id": people[0], "prompt": PROMPT}).json()
    assert (job["subject_id"], job["subject_ids"]) == (people[0], [people[0]])


def test_weights_count_in_proportion():
    parts = [BlendPart(subject_id=name, weight=weight) for name, weight in [("a", 1000.0), ("b", 250.0), ("a", 250.0)]]
    assert [(share.subject_id, round(share.weight, 9)) for share in shares_of(parts)] == [
        ("a", round(5 / 6, 9)),
        ("b", round(1 / 6, 9)),
    ]
    tiny = [BlendPart(subject_id=name, weight=5e-324) for name in "ab"]
    assert [share.weight for share in shares_of(tiny)] == [0.5, 0.5]


def test_a_blend_of_one_person_is_that_person(archive, people, blend):
    job = blend((people[0], 1), (people[0], 2)).json()
    request = archive.accepted("local", job["id"]).request
    assert (request.subject_id, request.blend) == (people[0], ())
    assert request.weights_key


def test_every_subject_must_be_there_and_ready(client, photo, people, blend, store):
    waiting = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()["id"]
    before = list(store.list(""))
    for other, status, code in [(waiting, 409, "subject-not-ready"), ("sub_" + "0" * 25, 404, "subject-not-found")]:
        answer = blend((people[0], 1), (other, 1))
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list(store.list("")) == before


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_blend_goes_with_any_of_its_subjects(client, services, people, blend, generated, store, deleted):
    over, waiting = blend((people[0], 1), (people[1], 1)).json(), blend((people[0], 1), (people[1], 1)).json()
    (picture,) = generated(over["id"])
    receipt = client.delete(f"/v1/subjects/{people[deleted]}").json()
    assert {over["id"], waiting["id"]} <= set(receipt["job_ids"])
    for path in (f"/v1/jobs/{over['id']}", f"/v1/jobs/{waiting['id']}", f"/v1/images/{picture}"):
        assert client.get(path).status_code == 404
    assert not [key for key in store.list("") if key.startswith(("local/jobs/" + over["id"], "pending/"))]
    assert PROMPT.encode() not in b"".join(store.objects.values())
    assert client.get(f"/v1/subjects/{people[1 - deleted]}/weights").status_code == 200


@pytest.mark.parametrize("name", ["GenerationRequest", "BatchItem"])
@pytest.mark.parametrize("blend", [{}, {"blend": None}, {"blend": [{"subject_id": "a", "weight": 1}] * 2}])
@pytest.mark.parametrize("subject", [{}, {"subject_id": None}, {"subject_id": "a"}])
def test_the_document_says_that_it_is_one_or_the_other(client, name, subject, blend):
    components = client.get("/openapi.json").json()["components"]
    schema = {**components["schemas"][name], "components": components}
    is_one = bool(subject.get("subject_id")) != bool(blend.get("blend"))
    assert Draft202012Validator(schema).is_valid({"prompt": PROMPT, **subject, **blend}) == is_one
