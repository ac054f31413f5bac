import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from core.lab.training import covers
from core.lab.training.cover_drawings import SHAPES, draw_mask, draw_sunglasses, move
from core.lab.training.data import load_faces
from core.photos.covers import load_covers

GREY = Image.new("RGB", (128, 128), (200, 170, 150))


def changed(picture):
    """Where a drawing changed the grey picture: the boolean map of 128 x 128."""
    return np.abs(np.asarray(picture, int) - np.asarray(GREY, int)).max(2) > 12


@pytest.mark.parametrize("shape", range(SHAPES))
def test_sunglasses_cover_the_eyes_and_not_the_mouth(shape):
    where = changed(draw_sunglasses(GREY, shape, np.random.default_rng(shape)))
    assert where[57:63, 46:51].all()
    assert where[57:63, 77:82].all()
    assert not where[80:].any()


@pytest.mark.parametrize("shape", range(SHAPES))
def test_a_mask_covers_the_mouth_and_not_the_eyes(shape):
    where = changed(draw_mask(GREY, shape, np.random.default_rng(shape)))
    assert where[88:96, 50:78].mean() > 0.9
    assert not where[:64, 44:84].any()


def test_moving_keeps_a_face_where_it_is_within_a_tenth():
    moved = move(draw_sunglasses(GREY, 3, np.random.default_rng(0)), np.random.default_rng(1))
    assert 51 <= moved.width == moved.height <= 128
    assert np.asarray(moved.convert("L"))[int(0.47 * moved.width), int(0.4 * moved.width)] < 120


def test_layers_are_fitted_that_tell_apart():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 40, generator=generator)
    covered = torch.stack([features[:, 0] > 0, features[:, 1] > 0.5], dim=1).float()
    weight, bias = covers.fit(features, covered)
    assert (((features @ weight.T + bias) > 0) == (covered > 0)).float().mean() > 0.95


def file_of_faces(path, count):
    """Flat faces, the first third behind glasses, some of them dark."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        pixels = random.normal(150, 20, (128, 128, 3))
        if number < count // 3:
            pixels[54:66, 38:90] *= 0.2 + number / count
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
        words = ["glasses"] if number < count // 3 else ["beard"] if number % 2 else []
        rows.append({"image": out.getvalue(), "identity": str(number), "attributes": words})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_darkest_eyes_behind_glasses_are_those_behind_sunglasses(tmp_path):
    faces = load_faces([file_of_faces(tmp_path / "faces.parquet", 30)], 128)
    sunglasses, clear = covers.by_darkness(faces)
    assert sunglasses == [0]
    assert clear == list(range(3, 10))


def test_the_command_writes_layers_that_the_service_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(
        covers, "features_of", lambda face: np.asarray(face.resize((64, 43)), np.float32).ravel()[:8192]
    )
    file = file_of_faces(tmp_path / "faces.parquet", 24)
    covers.main(["--faces", str(file), "--output", str(tmp_path / "out"), "--plain", "8"])
    found = load_covers(tmp_path / "out")
    assert found.names == ("eyes", "mouth")
    assert found.weight.shape == (2, 8192)
