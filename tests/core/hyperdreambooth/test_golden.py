"""The numbers of the whole algorithm on the embedded bundle, so that a change that means to keep them can show it."""

import numpy as np
import pytest
import torch
from PIL import Image

from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions, Row
from core.hyperdreambooth.sampling import generate
from core.settings import EMBEDDED_BUNDLE


def test_the_demo_face_gives_the_weights_and_the_picture_that_it_always_gave():
    bundle = load_bundle(EMBEDDED_BUNDLE, device="cpu")
    with Image.open(EMBEDDED_BUNDLE / "demo-face.png") as image:
        photo = torch.from_numpy(np.array(image.convert("RGB")))[None]
    made = personalize(bundle, photo, PersonalizeOptions(seed=7, steps=3))
    values, scales = made.weights.values.double(), made.weights.scales.double()
    assert (len(values), made.weights.metadata.rank, made.kept_step) == (59600, 5, 3)
    assert made.weights.metadata.fingerprint == "f6beb0f4e277a47c"
    assert made.weights.metadata.basis == "1a9499725289457f"
    assert float(values.std()) == pytest.approx(41.9799, abs=0.01)
    assert float(values.abs().sum()) == pytest.approx(1983954, rel=1e-4)
    assert float(scales.mean()) == pytest.approx(2.215986e-3, rel=1e-4)
    assert float(scales.std()) == pytest.approx(1.916560e-3, rel=1e-4)
    assert values[::20011].tolist() == pytest.approx([-3, 29, -43], abs=1)
    assert made.likeness_by["bundle"] == pytest.approx(0.6280, abs=0.002)
    row = Row("a pencil sketch of a [V] face", weights=made.weights, seed=3)
    picture = generate(bundle, [row], steps=4).double()
    assert float(picture.mean()) == pytest.approx(209.18, abs=0.1)
    assert float(picture.std()) == pytest.approx(47.349, abs=0.1)
