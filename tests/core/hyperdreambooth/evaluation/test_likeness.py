from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.evaluation.likeness import (
    Subject,
    measure,
    pictures_of,
    refine,
    starting_point,
    with_steps,
)
from core.hyperdreambooth.evaluation.recognition import TEMPLATE, Recogniser, to_template
from core.hyperdreambooth.evaluation.sheet import PROMPTS, style_sheet
from core.hyperdreambooth.face import FRAME, similarity
from core.hyperdreambooth.testing import random_bundle
from core.hyperdreambooth.training.data import Faces


def people(count: int) -> list[Subject]:
    rng = np.random.default_rng(0)
    return [
        Subject(str(n), *(rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((16, 16, 3), (2, 16, 16, 3))))
        for n in range(count)
    ]


def mean_colour(pictures: np.ndarray) -> np.ndarray:
    """A stand-in for a recogniser: unit vectors from the pictures' mean colours."""
    vectors = pictures.reshape(len(pictures), -1, 3).mean(1) + 1e-3
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("with_hypernetwork", [True, False])
def test_people_are_refined_in_groups_and_measured(with_hypernetwork):
    bundle = random_bundle(with_hypernetwork=with_hypernetwork)
    chosen = people(3)
    start = starting_point(bundle, chosen, seed=0)
    person = refine(bundle, chosen, start, group=2, seed=0)
    assert all(len(factors.left) == 3 for factors in person.values())
    pictures = pictures_of(bundle, person, 3, "a [V] face", each=2, seed=0)
    assert pictures.shape == (3, 2, 16, 16, 3)
    row = measure(mean_colour, chosen, pictures)
    assert 0 <= row.accepted <= 1
    assert row.photo[0] == pytest.approx(row.photo[0])


def test_a_person_s_own_photo_has_cosine_one():
    chosen = people(3)
    own = np.stack([subject.photo[None] for subject in chosen])
    row = measure(mean_colour, chosen, own)
    assert row.photo[0] == pytest.approx(1.0)
    assert row.accepted == 1.0


def test_the_number_of_steps_is_the_bundle_s_or_the_caller_s():
    assert random_bundle().finetuning_steps == 3
    assert random_bundle(with_hypernetwork=False).finetuning_steps == 4
    assert with_steps(random_bundle(), 9).finetuning_steps == 9


def test_alignment_takes_the_framing_to_the_template():
    there = similarity(FRAME * 128, TEMPLATE)
    assert np.abs(FRAME * 128 @ there[:2, :2].T + there[:2, 2] - TEMPLATE).max() < 5.0
    assert to_template(np.zeros((64, 64, 3), np.uint8)).shape == (112, 96, 3)


def test_a_recogniser_that_is_not_there_is_a_clear_error():
    with pytest.raises(SettingsError, match="no recogniser"):
        Recogniser(Path("nowhere.onnx"))


def test_a_sheet_has_a_column_for_every_style_and_only_faces_of_nobody(tmp_path):
    pictures = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8).numpy()
    faces = Faces(pictures, ("omi-1", "person-1", "omi-2"), ((), (), ()))
    file = style_sheet(random_bundle(), faces, tmp_path, seed=0)
    with Image.open(file) as sheet:
        assert sheet.size == (len(PROMPTS) * 32, 2 * 32 + 16)
