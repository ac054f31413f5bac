"""Names of colours: those of captions, painted behind a head."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from core.lab.evaluation.colours import background, to_lab
from core.lab.training.captions import COLOURS

OTHERS = {
    "tan": "beige", "#6e4f31": "brown", "darkgreen": "green", "navy": "blue", "lightblue": "blue", "maroon": "red",
    "dimgray": "gray",
}  # fmt: skip


@pytest.mark.parametrize(
    ("painted", "name"), [*((each, each) for each in COLOURS if each not in ("beige", "brown")), *OTHERS.items()]
)
def test_a_painted_background_has_its_name(painted, name):
    picture = np.full((32, 32, 3), ImageColor.getrgb(painted), np.uint8)
    picture[6:, 8:24] = (200, 150, 120)
    picture[22:] = (20, 20, 120)
    assert background(picture) == name


def test_lightness_runs_from_black_to_white():
    assert to_lab(np.array([[0.0, 0, 0], [255, 255, 255]])) == pytest.approx(
        np.array([[0, 0, 0], [100, 0, 0]]), abs=0.02
    )
