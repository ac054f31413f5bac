"""What `/v1/models` says of the styles and words of a bundle: those it names, with pictures where it has some."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from api.server.app import create_app
from core.settings import EMBEDDED_BUNDLE


@pytest.fixture
def model_of(settings, services, tmp_path):
    """A client of a service with the embedded bundle, but for these attributes, and the words that have a sample."""

    def make(attributes: list[str], sampled: list[str]) -> TestClient:
        bundle = tmp_path / "bundle"
        (bundle / "samples").mkdir(parents=True)
        for part in EMBEDDED_BUNDLE.iterdir():
            if part.name not in ("bundle.json", "samples"):
                (bundle / part.name).symlink_to(part)
        config = json.loads((EMBEDDED_BUNDLE / "bundle.json").read_text())
        (bundle / "bundle.json").write_text(json.dumps({**config, "attributes": attributes}))
        for word in sampled:
            picture = (EMBEDDED_BUNDLE / "samples" / "cartoon.webp").read_bytes()
            (bundle / "samples" / f"{word.replace(' ', '-')}.webp").write_bytes(picture)
        app = create_app(settings.model_copy(update={"bundle": str(bundle)}), services=services)
        return TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 5))

    return make


def test_words_come_with_their_pictures(model_of):
    client = model_of(["smiling", "round glasses", "hat"], ["smiling", "round glasses", "beard"])
    found = client.get("/v1/models").json()["models"][0]["attributes"]
    assert [word["name"] for word in found] == ["smiling", "round glasses", "hat"]
    assert [bool(word["sample"]) for word in found] == [True, True, False]
    for word in found[:2]:
        assert client.get(word["sample"]).headers["content-type"] == "image/webp"
    for unnamed in ("beard", "hat", "../bundle"):
        assert client.get(f"/v1/models/faces-128/samples/{unnamed}").status_code == 404


def test_what_the_embedded_bundle_honors_has_samples(client):
    model = client.get("/v1/models").json()["models"][0]
    assert len(model["styles"]) == 12
    assert model["attributes"]
    for each in (*model["styles"], *model["attributes"]):
        assert client.get(each["sample"]).status_code == 200


def test_a_bundle_that_honors_no_word_names_none(model_of):
    assert model_of([], []).get("/v1/models").json()["models"][0]["attributes"] == []
