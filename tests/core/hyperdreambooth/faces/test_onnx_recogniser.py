from pathlib import Path

import numpy as np
import pytest

from core.errors import SettingsError
from core.hyperdreambooth.faces.alignment import FRAME, similarity
from core.hyperdreambooth.faces.onnx_recogniser import TEMPLATE, OnnxRecogniser, path_of, template, to_template


def tiny_model(folder, *, height=112, width=96, name="face", given=b"images"):
    """An ONNX file written by hand: a picture's embedding is the mean of each colour."""
    axes = _field(1, b"axes") + _field(8, 2) + _field(8, 3) + _field(20, 7)
    keep = _field(1, b"keepdims") + _field(3, 0) + _field(20, 2)
    node = _field(1, given) + _field(2, b"embeddings") + _field(4, b"ReduceMean") + _field(5, axes) + _field(5, keep)
    asked, made = _tensor(given, b"n", 3, height, width), _tensor(b"embeddings", b"n", 3)
    graph = _field(1, node) + _field(2, b"mean") + _field(11, asked) + _field(12, made)
    file = folder / f"{name}.onnx"
    file.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 13)))
    return file


def _tensor(name, *dimensions):
    sizes = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in dimensions)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sizes)))


def _field(number, value):
    """A field of a protocol buffer: a number, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value):
    low = bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
    return low + (_varint(value >> 7) if value > 0x7F else b"")


def test_alignment_takes_the_framing_to_the_template():
    there = similarity(FRAME * 128, TEMPLATE)
    assert np.abs(FRAME * 128 @ there[:2, :2].T + there[:2, 2] - TEMPLATE).max() < 5.0
    assert to_template(np.zeros((64, 64, 3), np.uint8)).shape == (112, 96, 3)


def test_a_recogniser_that_is_not_there_is_a_clear_error():
    with pytest.raises(SettingsError, match="no recogniser"):
        OnnxRecogniser(Path("nowhere.onnx"))


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path):
    file = tmp_path / "face.onnx"
    file.write_bytes(b"nonsense")
    with pytest.raises(SettingsError, match="cannot be opened"):
        OnnxRecogniser(file)


def test_a_model_of_another_kind_is_refused(tmp_path):
    for sides in ({"height": b"height"}, {"width": b"width"}):
        with pytest.raises(SettingsError, match="no recogniser: it needs one input"):
            OnnxRecogniser(tiny_model(tmp_path, **sides))


@pytest.mark.parametrize(("width", "height", "given"), [(96, 112, b"images"), (112, 112, b"input.1"), (160, 160, b"x")])
def test_unit_embeddings_of_aligned_pictures(tmp_path, width, height, given):
    grey = np.full((3, 64, 64, 3), 51, np.uint8)
    embeddings = OnnxRecogniser(tiny_model(tmp_path, width=width, height=height, given=given))(grey, batch=2)
    assert embeddings.shape == (3, 3)
    np.testing.assert_allclose(embeddings, 3**-0.5, rtol=1e-3)


def test_pixels_are_as_the_path_says(tmp_path):
    file = tiny_model(tmp_path)
    red = np.full((1, 64, 64, 3), (255, 0, 0), np.uint8)
    np.testing.assert_allclose(OnnxRecogniser(file)(red), [[1, 0, 0]], atol=1e-3)
    signed = Path(f"{file}?range=1")
    assert path_of(signed) == file == path_of(file)
    np.testing.assert_allclose(OnnxRecogniser(signed)(red), np.array([[1, -1, -1]]) / 3**0.5, atol=1e-3)


def test_the_template_is_arcfaces_at_its_own_size():
    arcface = [(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)]
    np.testing.assert_allclose(template((112, 112)), arcface)
    np.testing.assert_allclose(template((192, 224)), 2 * TEMPLATE)
