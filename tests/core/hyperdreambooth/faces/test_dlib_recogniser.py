import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.server.testing import drawn_face
from core.errors import BundleError
from core.hyperdreambooth.faces.dlib_recogniser import (
    DIFFERENT,
    FOLDER,
    SAME,
    DlibRecogniser,
    distance,
    load_dlib_recogniser,
)
from core.hyperdreambooth.faces.tensor_file import TensorFile, read_tensor_file

PHOTOS = Path(__file__).parents[5] / "shared" / "faces" / "eval.parquet"


@pytest.fixture(scope="module")
def file():
    return read_tensor_file(FOLDER / "model.safetensors")


def reference(file, pixels):
    """The network in torch, by the same list of operations."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    tensors = {name: torch.from_numpy(tensor) for name, tensor in file.tensors.items()}
    here = ((torch.from_numpy(pixels) - tensors["mean"]) / 256).permute(2, 0, 1)[None]
    tags = {}
    for kind, *rest in json.loads(file.metadata["ops"]):
        if kind == "con":
            here = functional.conv2d(here, tensors[rest[0]], tensors[rest[1]], stride=rest[2], padding=rest[3])
        elif kind == "affine":
            here = here * tensors[rest[0]] + tensors[rest[1]]
        elif kind == "relu":
            here = functional.relu(here)
        elif kind == "max_pool":
            here = functional.max_pool2d(here, rest[0], rest[1])
        elif kind == "avg_pool":
            here = here.mean((2, 3)) if rest[0] == 0 else functional.avg_pool2d(here, rest[0], rest[1])
        elif kind == "tag":
            tags[rest[0]] = here
        elif kind == "skip":
            here = tags[rest[0]]
        elif kind == "add":
            both = here, tags[rest[0]]
            size = [max(sides) for sides in zip(*(part.shape for part in both), strict=True)]
            here = sum(
                functional.pad(part, [n for s, w in zip(part.shape[::-1], size[::-1], strict=True) for n in (0, w - s)])
                for part in both
            )
        else:
            here = here @ tensors[rest[0]]
    return here[0].numpy()


def test_the_port_gives_the_numbers_of_a_reference(file):
    pixels = np.asarray(drawn_face(150), dtype=np.float32)
    ours = DlibRecogniser(file).run((pixels - file.tensors["mean"]) / np.float32(256))
    np.testing.assert_allclose(ours.embedding, reference(file, pixels), atol=1e-5)
    assert ours.features.shape == (8, 8, 128)


def test_the_same_face_in_another_size_and_light_is_the_same_person():
    recogniser = load_dlib_recogniser()
    face = recogniser(drawn_face(256))
    assert distance(face, recogniser(drawn_face(128))) < SAME / 2
    assert distance(face, recogniser(drawn_face(256).point(lambda value: 0.8 * value))) < SAME / 2


def test_it_is_read_once():
    assert load_dlib_recogniser() is load_dlib_recogniser()


def test_another_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="not dlib's"):
        DlibRecogniser(TensorFile({}, {}))
    with pytest.raises(BundleError, match="unknown operation"):
        DlibRecogniser(TensorFile({"mean": np.zeros(3, np.float32)}, {"ops": '[["attention", "w"]]'}))
    (tmp_path / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(BundleError, match="cannot be read"):
        load_dlib_recogniser(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        load_dlib_recogniser(tmp_path / "nowhere")


@pytest.mark.skipif(not PHOTOS.exists(), reason="the evaluation photos are not here")
def test_photos_of_one_person_are_nearer_than_those_of_two():
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(PHOTOS, columns=["image", "identity"]).to_pylist()
    chosen = [rows[n] for n in range(0, 400, 8)]
    recogniser = load_dlib_recogniser()
    seen = [recogniser(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in chosen]
    pairs = [(a, b) for a in range(len(seen)) for b in range(a)]
    same = [distance(seen[a], seen[b]) for a, b in pairs if chosen[a]["identity"] == chosen[b]["identity"]]
    others = [distance(seen[a], seen[b]) for a, b in pairs if chosen[a]["identity"] != chosen[b]["identity"]]
    assert np.mean(np.array(same) <= DIFFERENT) > 0.97
    assert np.mean(np.array(others) > DIFFERENT) > 0.95
    assert np.mean(np.array(others) > SAME) > 0.99
