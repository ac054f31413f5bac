import json

import numpy as np
import pytest
import torch

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import FOLDER, FaceRecogniser, RecogniserConfig, cut_out, load_recogniser
from core.settings import EMBEDDED_BUNDLE

SMALL = RecogniserConfig(channels=(8, 8), embedding=16, auc=0.9)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def recogniser():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FaceRecogniser(SMALL).eval().requires_grad_(False)


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(recogniser):
    embeddings = recogniser.embed(PICTURES)
    assert embeddings.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(recogniser.embed(PICTURES, batch=2), embeddings, atol=1e-5)


def test_a_mirrored_picture_is_the_same_person(recogniser):
    rows = np.zeros((1, 64, 64, 3), np.uint8)
    rows[:, :, 10:30] = 200
    same = recogniser.embed(rows) @ recogniser.embed(rows[:, :, ::-1]).T
    assert same[0, 0] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_the_face_is_cut_out_of_pictures_of_any_size(recogniser, side):
    picture = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    picture[:, : side // 8] = 255
    pixels = cut_out(picture, SMALL)
    assert pixels.shape == (1, 3, 48, 48)
    assert pixels.max() == -1, "what is above the face is not looked at"


def test_it_comes_back_from_its_folder(recogniser, tmp_path):
    recogniser.save(tmp_path)
    again = load_recogniser(tmp_path)
    assert again.config.auc == 0.9
    np.testing.assert_allclose(again.embed(PICTURES), recogniser.embed(PICTURES), atol=1e-2)


def test_a_folder_without_one_gives_none_and_a_broken_one_says_so(recogniser, tmp_path):
    assert load_recogniser(tmp_path) is None
    recogniser.save(tmp_path)
    described = tmp_path / FOLDER / "config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "embedding": 8}))
    with pytest.raises(BundleError, match="cannot be read"):
        load_recogniser(tmp_path)


def test_the_embedded_bundles_own_tells_people_apart():
    folder = EMBEDDED_BUNDLE / FOLDER
    recogniser = load_recogniser(EMBEDDED_BUNDLE)
    assert recogniser.config.auc >= 0.75
    assert recogniser.config.styled_auc > 0.5
    assert -1 < recogniser.config.threshold < 1
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
