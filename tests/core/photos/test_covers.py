import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from api.server.testing import drawn_face
from core.errors import BundleError
from core.hyperdreambooth.faces.dlib_recogniser import load_dlib_recogniser
from core.photos.covers import Covers, load_covers


def test_what_is_above_the_threshold_is_covered():
    weight = np.zeros((2, 8 * 8 * 128))
    weight[0, 0], weight[1, -1] = 1.0, -1.0
    covers = Covers(("eyes", "mouth"), weight, np.array([-0.5, 0.5]))
    features = np.zeros((8, 8, 128))
    assert covers(features) == ("mouth",)
    features[0, 0, 0] = features[-1, -1, -1] = 1.0
    assert covers(features) == ("eyes",)


def test_a_drawn_face_is_bare():
    assert load_covers().names == ("eyes", "mouth")
    assert load_covers()(load_dlib_recogniser()(drawn_face(192)).features) == ()


def test_another_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        load_covers(tmp_path)
    save_file(
        {"weight": np.zeros((1, 8192), np.float32)}, tmp_path / "model.safetensors", {"covers": json.dumps(["a"])}
    )
    with pytest.raises(BundleError, match="bias"):
        load_covers(tmp_path)
