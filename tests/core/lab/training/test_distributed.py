"""A hypernetwork on a given base: one process and two, unbroken and killed, end at the same weights."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from core.errors import BundleError
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.personalize import personalize
from core.lab.testing import random_pipeline
from core.lab.training import distributed as program
from core.lab.training.recipe import load_large_recipe
from tests.core.hyperdreambooth.test_sdxl import narrow_sdxl

RECIPE = """
base = "base"
output = "{name}/bundle"
work = "{name}"
seed = 3
slice = 2
precision = "{precision}"
[data]
train = ["faces.parquet"]
buffer = 4
readers = 0
styles = ["pencil sketch"]
[bundle]
name = "tiny"
resolution = 16
lidb = {{ a = 12, b = 6 }}
finetune = {{ rank = 2, steps = 2, rows = 2 }}
sampling = {{ steps = 1, guidance_scale = 2.0, batch = 16 }}
[network]
resolution = 8
stem = [8, 8]
width = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
head_width = 8
rank = 1
[preoptimize]
people = 5
group = 2
rows = 1
steps = 2
[hypernetwork]
beta = 1.0
empty = 0.1
identity = 0.1
optimization = {{ steps = 24, batch = 8, learning_rate = 1e-2, warmup = 2, checkpoint_every = 4 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random_pipeline().save_pretrained(folder / "base")
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(21):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
        pictures.append(stream.getvalue())
    table = pa.table({"image": pictures, "identity": list("aabbccddeeffgghhiijjk")})
    pq.write_table(table, folder / "faces.parquet", row_group_size=6)
    return folder


def write(folder: Path, name: str, precision: str = "no", changes: Mapping[str, str] | None = None) -> str:
    text = RECIPE.format(name=name, precision=precision)
    for old, new in (changes or {}).items():
        text = text.replace(old, new)
    (folder / f"{name}.toml").write_text(text)
    return str(folder / f"{name}.toml")


def run(
    folder: Path, name: str, *options: str, precision: str = "no", changes: Mapping[str, str] | None = None
) -> None:
    """One process: this one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["distributed", write(folder, name, precision, changes), "--device", "cpu", *options])
        program.main()
    torch.set_num_threads(threads)


def start_two(folder: Path, name: str) -> subprocess.Popen[str]:
    """Two processes, as anybody starts them; accelerate calls it --multi_gpu also where there is none."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return subprocess.Popen(
        [sys.executable, *launch, "-m", program.__name__, write(folder, name), "--device", "cpu"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "hypernetwork/checkpoint.safetensors")


def kill_all(pid: int) -> None:
    """A process and all that it started; accelerate's are in sessions of their own."""
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
        each.kill()


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as stream:
        return int(stream.metadata()["step"])


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-6, atol=1e-7, msg=lambda text, k=key: f"{k}: {text}")


@pytest.fixture(scope="module")
def alone(folder) -> None:
    run(folder, "alone")


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_end_where_one_does(folder, alone):
    process = start_two(folder, "two")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "processes: 2; about" in said
    assert said.count("CPU-process-hours in all") == 1, "one of them speaks"
    targets = load_file(folder / "alone/preoptimize/targets.safetensors")
    assert targets["pictures"].tolist() == [0, 5, 10, 15, 20]
    assert_same(load_file(folder / "two/preoptimize/targets.safetensors"), targets)
    assert_same(weights(folder, "two"), weights(folder, "alone"))
    assert load_bundle(folder / "two/bundle", device="cpu").has_hypernetwork
    assert (folder / "two/hypernetwork/samples.png").is_file()


@pytest.mark.process
@pytest.mark.slow
def test_killed_in_the_middle_and_gone_on_by_another_number_of_processes(folder, alone):
    process = start_two(folder, "killed")
    checkpoint = folder / "killed/hypernetwork/checkpoint.safetensors"
    until = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    kill_all(process.pid)
    process.communicate()
    assert 0 < step_of(checkpoint) < 24
    run(folder, "killed")
    assert_same(weights(folder, "killed"), weights(folder, "alone"))


@pytest.mark.slow
def test_an_estimate_trains_nothing(folder, caplog):
    with caplog.at_level("INFO"):
        run(folder, "estimate", "--estimate")
    assert "24 steps left" in caplog.text
    assert "3 groups left" in caplog.text
    assert not (folder / "estimate").exists()


@pytest.fixture
def another_precision():
    """accelerate refuses to change its mind within a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_precision_that_there_is_not_is_said(folder, another_precision, capsys, monkeypatch):
    file = Path(write(folder, "precise", precision="bf8"))
    monkeypatch.setattr("sys.argv", ["distributed", str(file), "--device", "cpu"])
    with pytest.raises(SystemExit):
        program.main()
    assert "precision 'bf8'" in capsys.readouterr().err


def test_bfloat16_can_be_estimated(folder, another_precision, caplog):
    with caplog.at_level("INFO"):
        run(folder, "bf16", "--estimate", precision="bf16")
    assert "24 steps left" in caplog.text


@pytest.mark.slow
def test_float16_trains_to_the_end(folder, another_precision):
    run(folder, "fp16", precision="fp16")
    assert load_bundle(folder / "fp16/bundle", device="cpu").has_hypernetwork


@pytest.mark.slow
def test_sdxl_is_trained_by_the_same_command(folder):
    narrow_sdxl().save_pretrained(folder / "xl-base")
    run(folder, "xl", changes={'"base"': '"xl-base"', "resolution = 16": "resolution = 64", "steps = 24": "steps = 2"})
    bundle = load_bundle(folder / "xl/bundle", device="cpu")
    assert bundle.has_hypernetwork
    photo = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8))
    assert personalize(bundle, photo).preview is not None


def test_a_batch_is_whole_slices(folder):
    recipe = write(folder, "odd", changes={"slice = 2": "slice = 3"})
    with pytest.raises(BundleError, match="no whole number of 3s"):
        load_large_recipe(Path(recipe))


def test_a_base_that_is_given_does_not_learn(folder):
    recipe = write(folder, "joint", changes={"[hypernetwork]": "[hypernetwork]\nbase_rate = 0.25"})
    with pytest.raises(BundleError, match="the base of this recipe is frozen"):
        load_large_recipe(Path(recipe))


def test_the_recipe_for_stable_diffusion_can_be_read():
    recipe = load_large_recipe(Path("core/lab/training/recipes/sd15.toml"))
    assert recipe.slices == 8
    assert recipe.bundle.lidb.a == 100
    assert recipe.preoptimize is not None
