from dataclasses import replace

import numpy as np
import pytest

from core.lab.evaluation.groups import group_table, groups, typology_angle


def plain(colour) -> np.ndarray:
    return np.full((64, 64, 3), colour, np.uint8)


def test_lighter_skin_has_the_larger_angle():
    light, medium, dark = (typology_angle(plain(c)) for c in ((245, 220, 200), (200, 150, 120), (90, 60, 45)))
    assert light > 40 > medium > 0 > dark


def test_everybody_is_in_one_group_of_tone(people):
    chosen = [replace(s, attributes=("man",) if n % 2 else ("woman",)) for n, s in enumerate(people(9))]
    found = groups(chosen)
    assert found["man"].sum() == 4
    assert sum(mask.sum() for name, mask in found.items() if "skin" in name) == 9


def test_the_table_says_how_many_and_leaves_small_groups_out(people):
    chosen = [replace(s, attributes=("man",)) for s in people(9)]
    records = [{"identity": s.identity, "photo": 0.1 * n} for n, s in enumerate(chosen)]
    text = group_table(chosen, records, records)
    assert "| man | 9 | 0.400" in text
    assert "| 0.000 ± 0.000 |" in text.replace("-0.000", "0.000"), "the ceiling explains all of it"
    assert "woman" not in text
    assert "Correlation between a person's likeness and the ceiling: 1.00." in text


@pytest.mark.parametrize("side", [64, 128])
def test_the_angle_does_not_depend_on_the_size(side):
    assert typology_angle(np.full((side, side, 3), (200, 150, 120), np.uint8)) == pytest.approx(
        typology_angle(plain((200, 150, 120)))
    )
