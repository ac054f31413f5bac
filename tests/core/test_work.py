from __future__ import annotations

import pytest

from core.records import GenerateRequest, PersonalizeRequest
from core.work import WorkModel

MODEL = WorkModel(resolution=64, steps=20, finetune_steps=40, finetune_rows=4)


@pytest.mark.parametrize(
    ("asked", "pictures"),
    [
        ({}, 1),
        ({"n": 16}, 16),
        ({"steps": 100}, 5),
        ({"width": 128}, 2),
        ({"width": 1024, "height": 1024, "steps": 100, "n": 16}, 256 * 5 * 16),
        ({"width": 32, "height": 32, "steps": 10}, 1 / 8),
    ],
)
def test_pictures_count_by_pixels_steps_and_number(asked: dict[str, int], pictures: float) -> None:
    request = GenerateRequest(subject_id="sub_1", prompt="a [V] face").model_copy(update=asked)
    assert MODEL.of(request) == pytest.approx(pictures)


@pytest.mark.parametrize(("steps", "photos", "pictures"), [(None, 1, 12), (80, 1, 24), (None, 2, 18), (None, 8, 24)])
def test_personalizing_counts_by_steps(steps: int | None, photos: int, pictures: float) -> None:
    request = PersonalizeRequest(subject_id="sub_1", photos=("p",) * photos, steps=steps)
    assert MODEL.of(request) == pytest.approx(pictures)
