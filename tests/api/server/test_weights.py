"""Files for other programs, made by a process that has no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.formats.lidb_file import WeightsMetadata
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.target import Target
from core.records import PersonalizeResult, Weights
from core.subjects import export_layouts as layouts
from tests.api.server.test_subjects import assert_refused, post

RANK = 2
LAYERS = (Target("text_encoder.encoder.layers.0.self_attn.q_proj", 12, 8), Target("unet.attn1.to_q", 8, 10))
LIDB = LidbConfig(a=6, b=4)
METADATA = WeightsMetadata(
    bundle="tiny",
    fingerprint="00ff",
    targets="aa",
    layers=2,
    basis="bb",
    basis_seed=0,
    preset="attention",
    rank=RANK,
    kind="lidb",
    precision="fp32",
    class_noun="face",
    identifier="sks",
    prompt="a sks face",
    kept_step=40,
)
PINS = ("bundle", "fingerprint", "targets", "layers", "basis", "basis_seed", "preset")
LAYOUT = Layout(
    pins={pin: getattr(METADATA, pin) for pin in PINS}, lidb=LIDB, layers=LAYERS, resolution=64, text_width=768
)


def lidb(metadata=METADATA, count=40):
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    tensors = {"values": values, "scales": np.empty(0, dtype=np.float16)}
    return save(tensors, metadata={"lidb": json.dumps(asdict(metadata))})


@pytest.fixture
def path(client, photo, claim, store):
    """Where the weights of a subject are that is ready; its file can be opened, and its base model is described."""

    def ready(data=None, *, described=True):
        subject = post(client, photo).json()
        held = claim(subject["job_id"])
        data = data or lidb()
        weights = Weights(refined_key=held.keep("refined.lidb", data), bytes=len(data), sha256="0" * 64)
        held.succeed(
            PersonalizeResult(weights=weights, likeness=None, kept_step=40, bundle="tiny", bundle_fingerprint="00ff")
        )
        if described:
            layouts.write_down(store, "00ff", "bb", LAYOUT.to_json())
        return f"/v1/subjects/{subject['id']}/weights"

    return ready


def metadata_of(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


@pytest.mark.parametrize(
    ("file_format", "key"),
    [
        ("peft", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"),
        ("kohya", "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"),
    ],
)
def test_a_subject_can_be_taken_away(client, path, file_format, key):
    url = path()
    answer = client.get(url, params={"format": file_format})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    name = f"{url.split('/')[3]}.refined.{file_format}.safetensors"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    tensors = load(answer.content)
    assert tensors[key].shape == (RANK, 8)
    assert ("lora_unet_attn1_to_q.alpha" in tensors) == (file_format == "kohya")
    said = metadata_of(answer.content)
    assert (said["hyperdreambooth.trigger"], said["hyperdreambooth.base"]) == ("sks", "tiny")


def test_the_file_has_an_etag_that_saves_sending_it_again(client, path):
    url = path()
    tags = set()
    for file_format in ("lidb", "peft", "kohya"):
        first = client.get(url, params={"format": file_format})
        headers = {"if-none-match": first.headers["etag"]}
        again = client.get(url, params={"format": file_format}, headers=headers)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        tags.add(first.headers["etag"])
    assert len(tags) == 3
    assert client.get(url).headers["content-disposition"].endswith('.refined.lidb"')


def test_nothing_of_it_is_kept_and_deletion_ends_it(client, path, store):
    url = path()
    before = dict(store.objects)
    assert client.get(url, params={"format": "kohya"}).status_code == 200
    assert store.objects == before
    client.delete(url.removesuffix("/weights"))
    assert_refused(client.get(url, params={"format": "kohya"}), 404, "subject-not-found")


@pytest.mark.parametrize("file_format", ["lidb", "peft", "kohya"])
def test_what_is_not_there_yet_says_what_to_do(client, photo, path, file_format):
    waiting = post(client, photo).json()
    answer = client.get(f"/v1/subjects/{waiting['id']}/weights", params={"format": file_format})
    assert "wait" in assert_refused(answer, 409, "subject-not-ready")["detail"]
    answer = client.get(path(), params={"format": file_format, "stage": "preview"})
    assert "refined" in assert_refused(answer, 409, "subject-not-ready")["detail"]


def test_a_base_model_that_no_worker_has_described_is_said(client, path):
    url = path(described=False)
    body = assert_refused(client.get(url, params={"format": "peft"}), 409, "subject-not-ready")
    assert "base model" in body["detail"]
    assert client.get(url).status_code == 200


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"not a file", "weights-format", "not a .lidb file"),
        (lidb(replace(METADATA, version=2)), "weights-format", "version 2"),
        (lidb(count=7), "weights-format", "numbers"),
        (lidb(replace(METADATA, targets="cc")), "weights-mismatch", "targets"),
    ],
    ids=["rubbish", "version", "count", "targets"],
)
def test_a_file_that_cannot_be_opened_is_refused_with_the_reason(client, path, data, code, says):
    answer = client.get(path(data), params={"format": "peft"})
    assert says in assert_refused(answer, 409, code)["detail"]


def test_other_formats_are_refused(client, path):
    url = path()
    for wrong in ("ckpt", "", "LIDB", "../lidb"):
        assert_refused(client.get(url, params={"format": wrong}), 422, "invalid-input", "format")
    assert_refused(client.get(url, params={"stage": "final"}), 422, "invalid-input", "stage")
