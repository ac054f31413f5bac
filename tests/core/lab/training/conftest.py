"""A bundle that the small recipe made, from pictures that are drawn here."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.lab.training import __main__ as program
from tests.core.lab.training.small_recipe import RECIPE


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(8):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "WEBP")
        pictures.append(stream.getvalue())
    identities = ["a", "a", "b", "b", "c", "c", "d", "e"]
    attributes = [["man"], ["woman", "smiling"]] * 4
    table = pa.table({"image": pictures, "identity": identities, "attributes": attributes})
    pq.write_table(table, folder / "faces.parquet")
    (folder / "BUNDLE.toml").write_text(RECIPE)
    return folder / "BUNDLE.toml"


@pytest.fixture(scope="session")
def bundle_folder(recipe) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["training", str(recipe), "--device", "cpu"])
    program.main()
    patch.undo()
    return recipe.parent / "bundle"
