"""What a recipe may say."""

import shutil
from pathlib import Path

import pytest

from core.errors import BundleError
from core.hyperdreambooth.model.config import LinearHyperNetworkConfig
from core.lab.training.recipe import load_large_recipe, load_recipe
from core.lab.training.stages import TrainingRun
from tests.core.lab.training.small_recipe import RECIPE, linear_recipe

RECIPES = sorted(Path("core/lab/training/recipes").glob("*.toml"))
LARGE = {"sd15", "sdxl"}
"""Recipes that begin with a pipeline of the hub."""


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_loads(file):
    load = load_large_recipe if file.stem in LARGE else load_recipe
    assert load(file).bundle.name


def test_a_recipe_may_say_how_many_identities_are_trained_on(recipe, tmp_path):
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    (tmp_path / "BUNDLE.toml").write_text(RECIPE.replace("styled = 1\n", "styled = 1\nidentities = 2\n", 1))
    faces = TrainingRun(load_recipe(tmp_path / "BUNDLE.toml"), device="cpu").faces
    assert faces.identities == ("a", "a", "b", "b")
    assert len(faces.pictures) == len(faces.attributes) == 4


def test_a_base_that_learns_on_gets_no_synthetic_faces(tmp_path):
    for wrong in ("warped = 1\nbase_rate = 0.25", "warped = -1"):
        file = tmp_path / "BUNDLE.toml"
        file.write_text(linear_recipe().replace("noisiest = 0.5", wrong))
        with pytest.raises(BundleError, match=r"BUNDLE.toml.hypernetwork: warped -?1 is 0 or more"):
            load_recipe(file)


def test_a_table_of_two_kinds_is_the_one_that_knows_its_keys(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(linear_recipe())
    assert load_recipe(file).network == LinearHyperNetworkConfig(32, eigenfaces=3, face_eigenfaces=3, width=4, rank=1)
    file.write_text(linear_recipe().replace("face_eigenfaces", "faces"))
    with pytest.raises(BundleError, match=r"BUNDLE.toml.network: unknown key"):
        load_recipe(file)


def test_an_unknown_key_of_a_recipe_is_named(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text().replace("[base]", "[base]\nspeed = 9"))
    with pytest.raises(BundleError, match="unknown key speed"):
        load_recipe(file)


def test_an_optimizer_that_there_is_none_of_is_named(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text().replace("steps = 2, batch = 8,", 'steps = 2, optimizer = "sgd", batch = 8,'))
    with pytest.raises(BundleError, match=r"(?s)BUNDLE.toml.classifier.optimization: .*'sgd'"):
        load_recipe(file)
