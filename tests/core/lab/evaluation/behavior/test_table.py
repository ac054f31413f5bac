"""Means, correlations and shares over people, on records whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from core.lab.evaluation.behavior.table import markdown, summarise

PEOPLE = range(20)
ANGLES = np.random.default_rng(0).uniform(-30, 30, len(PEOPLE))


def record(person: int, **changes: object) -> dict[str, object]:
    angle = float(ANGLES[person])
    same = {"photo": {"yaw": angle, "pitch": angle}, "yaws": [angle, None], "pitches": [1.0, -1.0]}
    return {"identity": str(person), "yaw": 2.0, "pitch": 1.0, "structure": 0.2, "style_gt": 0.3, **same, **changes}


def test_a_copier_follows_the_photo_and_has_its_share_of_the_base():
    rows = {
        "base": [record(n, yaw=8.0, structure=0.4, yaws=[float(ANGLES[-1 - n])] * 2) for n in PEOPLE],
        "copier": [record(n) for n in PEOPLE],
        "filter": [{"identity": str(n), "style_gt": 0.2 if n % 2 else 0.4} for n in PEOPLE],
    }
    found = summarise(rows)
    assert found["copier"]["yaw_follows"] == (pytest.approx(1), pytest.approx(0))
    assert abs(found["base"]["yaw_follows"][0]) < 0.5
    assert "pitch_follows" in found["copier"]
    assert found["copier"]["yaw_share"] == (0.25, 0)
    assert found["copier"]["structure_share"][0] == pytest.approx(0.5)
    assert found["base"]["yaw_share"][0] == 1
    mean, half = found["copier"]["style_share"]
    assert mean == pytest.approx(1)
    assert half == pytest.approx(1.96 * 0.1 / 0.3 / 20**0.5, rel=0.15)
    assert "yaw_share" not in found["filter"]


def test_what_lacks_is_left_out_and_one_person_has_no_interval():
    (summary,) = summarise({"copier": [record(0)]}).values()
    assert summary["structure"] == (0.2, None)
    assert not {"yaw_follows", "yaw_share", "style_share"} & set(summary)


def test_the_tables_name_rows_and_words():
    effects = {"effect": 0.5, "asked/hat": 1.0, "unasked/hat": 0.25}
    found = summarise({"base": [record(0, **effects)], "copier": [record(0, **{"sim_gt/A": 0.5})]})
    text = markdown(found, {"base": "the base", "copier": "a copy"}, ["A"])
    assert "## By A\n\n| | Sim(GT) |\n|---|---|\n| a copy | 0.500 |" in text
    assert "| hat | 1.00 / 0.25 |" in text
    assert "Cost" not in text
