"""A recipe of a few steps a stage, and runs of variants of it."""

import shutil
from pathlib import Path

from core.lab.training.recipe import load_recipe
from core.lab.training.stages import STAGES, TrainingRun

RECIPE = """
output = "bundle"
work = "work"
seed = 3
[data]
train = ["faces.parquet"]
evaluate = "faces.parquet"
styled = 1
styles = ["pencil sketch", "neon sign"]
[bundle]
name = "drawn"
resolution = 32
lidb = { a = 8, b = 4 }
finetune = { rank = 2, steps = 2, rows = 2 }
sampling = { steps = 2, guidance_scale = 2.0, batch = 4 }
[network]
resolution = 32
stem = [8, 8, 8]
width = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
head_width = 8
rank = 1
[autoencoder]
channels = [8, 16]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[classifier]
attributes = ["man", "smiling"]
channels = [8, 8]
optimization = { steps = 2, batch = 8, learning_rate = 1e-3 }
[recogniser]
channels = [8, 8]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[decoder]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[base]
channels = [16, 32]
text_width = 32
text_layers = 1
optimization = { steps = 2, batch = 6, learning_rate = 1e-3 }
[preoptimize]
people = 4
group = 2
rows = 1
steps = 2
[hypernetwork]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
"""
LINEAR_NETWORK = """
resolution = 32
eigenfaces = 3
face_eigenfaces = 3
width = 4
rank = 1
"""
LINEAR_TRAINING = """
beta = 0.0
identity = 0.0
least_noise = 0.2
noisiest = 0.5
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
"""


def linear_recipe() -> str:
    """A linear hypernetwork without pre-optimised targets, on the same base."""
    before, rest = RECIPE.split("[network]")
    stages = rest[rest.index("[autoencoder]") : rest.index("[preoptimize]")]
    return f"{before}[network]{LINEAR_NETWORK}{stages}[hypernetwork]{LINEAR_TRAINING}"


def trained_on(base: Path, text: str, folder: Path) -> tuple[Path, TrainingRun]:
    """A recipe in ``folder`` whose base is of another training, and its run after the hypernetwork's stage."""
    for stage in ("autoencoder", "base", "classifier", "decoder", "recogniser", "tokenizer"):
        shutil.copytree(base / "work" / stage, folder / "work" / stage)
    shutil.copy(base / "faces.parquet", folder)
    file = folder / "BUNDLE.toml"
    file.write_text(text)
    run = TrainingRun(load_recipe(file), device="cpu")
    assert [run.load(stage) for stage in STAGES] == [True, True, True, True, True, True, False, True]
    run.run("hypernetwork")
    return file, run


def without(table: str, recipe: Path, folder: Path) -> TrainingRun:
    """The run of the recipe less one of its tables."""
    before, _, rest = recipe.read_text().partition(f"[{table}]")
    shutil.copy(recipe.parent / "faces.parquet", folder)
    file = folder / "BUNDLE.toml"
    file.write_text(before + rest[rest.index("\n[") + 1 :])
    return TrainingRun(load_recipe(file), device="cpu")
