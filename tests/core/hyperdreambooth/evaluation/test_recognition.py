from pathlib import Path

import numpy as np
import pytest

from core.errors import SettingsError
from core.hyperdreambooth.evaluation.recognition import TEMPLATE, Recogniser, to_template
from core.hyperdreambooth.face import FRAME, similarity


def test_alignment_takes_the_framing_to_the_template():
    there = similarity(FRAME * 128, TEMPLATE)
    assert np.abs(FRAME * 128 @ there[:2, :2].T + there[:2, 2] - TEMPLATE).max() < 5.0
    assert to_template(np.zeros((64, 64, 3), np.uint8)).shape == (112, 96, 3)


def test_a_recogniser_that_is_not_there_is_a_clear_error():
    with pytest.raises(SettingsError, match="no recogniser"):
        Recogniser(Path("nowhere.onnx"))
