"""Sheets have a column for everything they name, and a card only generated faces."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from core.errors import SettingsError
from core.lab.evaluation.behavior.rows import Made, Plan
from core.lab.evaluation.behavior.sheet import WORDS, card, join_lines, labels, save_line
from core.lab.evaluation.subjects import Subject
from core.lab.testing import random_bundle
from core.lab.training.data import Faces

STYLES = ("cartoon", "mosaic", "neon sign", "blueprint", "pop art portrait", "watercolor painting", "pencil sketch")


def test_a_card_has_seeds_words_and_styles_of_generated_faces(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    faces = Faces(pictures, ("omi-1", "person-1", "omi-2"), ((), (), ()))
    file = tmp_path / "card.png"
    card(random_bundle(), faces, STYLES, file, seed=0)
    with Image.open(file) as sheet:
        assert sheet.size == ((1 + 3 + 8 + 6) * 128, 2 * 128 + 16)
    with pytest.raises(SettingsError, match="'omi'"):
        card(random_bundle(), Faces(pictures[:1], ("person-1",), ((),)), STYLES, file, seed=0)


def test_a_sheet_joins_the_lines_there_are(tmp_path):
    plan = Plan(2, ("hat", "smiling", "old"), STYLES[:1])
    assert labels(plan) == ["photo", "seed 0", "seed 1", "smiling", "hat", "cartoon"]
    assert set(WORDS) <= set(Plan().words)
    one = np.zeros((1, 16, 16, 3), np.uint8)
    made = Made(np.concatenate([one, one]), dict.fromkeys(plan.words, one), {"cartoon": one})
    join_lines(tmp_path / "lines", plan, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
    for name in ("000", "001", "002"):
        save_line(Subject("ada", one[0], one), made, plan, tmp_path / "lines" / f"{name}.png")
    join_lines(tmp_path / "lines", plan, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 128, 3 * 128 + 16)
