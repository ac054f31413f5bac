"""Both ends of the versions that a bundle's files are opened with: `make test` installs the others."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.hyperdreambooth.formats import exports, lidb_file
from core.hyperdreambooth.formats.lidb_weights import layout_of, to_bytes
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.lab.testing import TINY, random_pipeline
from core.lab.training.export import export_bundle
from core.settings import EMBEDDED_BUNDLE
from tests.core.hyperdreambooth.plain import differ, ours, someone

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSIONS = ROOT / ".versions"


def run(versions: str, script: str, *arguments: Path) -> str:
    """What a script prints with the versions of a folder of `.versions`."""
    folder = VERSIONS / versions
    if not folder.is_dir():
        pytest.skip(f"{folder} is made by: make test")
    environ = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    command = [sys.executable, HERE / script, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle with personalized text encoders, as a training leaves it."""
    folder = tmp_path_factory.mktemp("exported")
    bundle = from_pipeline(random_pipeline(), TINY)
    export_bundle(bundle, folder)
    return folder


@pytest.fixture(params=["embedded", "exported"])
def folder(request, exported):
    return {"embedded": EMBEDDED_BUNDLE, "exported": exported}[request.param]


def test_the_oldest_versions_of_the_range_open_the_same_bundle(folder):
    bundle = load_bundle(folder, device="cpu")
    assert run("oldest", "load.py", folder).split()[-2:] == [bundle.fingerprint, bundle.targets_hash]


@pytest.mark.parametrize("file_format", ["peft", "kohya"])
@pytest.mark.parametrize("versions", ["oldest", "others"])
def test_exports_draw_the_same_picture_there(versions, file_format, folder, tmp_path):
    bundle = load_bundle(folder, device="cpu")
    weights, file, out = someone(bundle), tmp_path / "someone.safetensors", tmp_path / "out.npy"
    file.write_bytes(exports.export(lidb_file.read(to_bytes(weights)), layout_of(bundle), file_format))
    run(versions, "draw.py", folder, file, out)
    assert differ(np.load(out), ours(bundle, weights)) <= 3
