"""Parts that begin with those of an earlier bundle."""

import shutil

import numpy as np
import pytest
import torch

from core.errors import BundleError
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.training.inherit import earlier_latents
from core.lab.training.recipe import load_recipe
from core.lab.training.stages import TrainingRun
from tests.core.lab.training.small_recipe import RECIPE

LARGER = RECIPE.replace("resolution = 32\nlidb", "resolution = 64\nlidb").replace(
    "channels = [8, 16]", "channels = [8, 8, 16]\nanchor = 0.5"
)
"""Twice the size: one level more in the autoencoder, the same latents."""


@pytest.fixture
def larger(recipe, bundle_folder, tmp_path):
    """A run of the larger recipe, begun with the bundle of the small one."""
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    text = LARGER.replace("seed = 3", f'seed = 3\nstart = "{bundle_folder}"').replace("tokens = 24", "tokens = 30")
    (tmp_path / "BUNDLE.toml").write_text(text.replace("text_layers = 1", "text_layers = 1\ntokens = 30"))
    return TrainingRun(load_recipe(tmp_path / "BUNDLE.toml"), device="cpu")


def test_unet_and_inner_levels_are_those_of_the_earlier_bundle(larger, bundle_folder):
    earlier = load_bundle(bundle_folder, device="cpu")
    torch.testing.assert_close(larger.bundle.unet.state_dict(), earlier.unet.state_dict())
    own, before = larger.bundle.vae, earlier.vae
    torch.testing.assert_close(own.encoder.down_blocks[2].state_dict(), before.encoder.down_blocks[1].state_dict())
    torch.testing.assert_close(own.decoder.up_blocks[0].state_dict(), before.decoder.up_blocks[0].state_dict())
    torch.testing.assert_close(own.encoder.conv_out.weight, before.encoder.conv_out.weight)


def test_words_that_both_know_keep_their_vectors_and_later_places_repeat_the_last(larger, bundle_folder):
    earlier = load_bundle(bundle_folder, device="cpu")

    def vectors(bundle):
        table = bundle.text_encoder.get_input_embeddings().weight
        return {token: table[number] for token, number in bundle.tokenizer.get_vocab().items()}

    own, before = vectors(larger.bundle), vectors(earlier)
    assert len(own.keys() & before.keys()) > 100
    assert all(torch.equal(own[token], before[token]) for token in own.keys() & before.keys())
    own_places, places = (
        next(value for name, value in each.text_encoder.state_dict().items() if "position_embedding" in name)
        for each in (larger.bundle, earlier)
    )
    assert (len(own_places), len(places)) == (30, 24)
    torch.testing.assert_close(own_places, torch.cat([places, places[-1:].expand(6, -1)]))


def test_earlier_latents_are_of_the_picture_at_the_earlier_size(bundle_folder):
    vae = load_bundle(bundle_folder, device="cpu").vae
    large = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64))).float()
    small = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(earlier_latents(vae, large, 32), vae.encode(small).latent_dist.mean)


def test_the_larger_autoencoder_learns_beside_the_earlier_one(larger):
    larger.run("autoencoder")
    assert larger.load("autoencoder")


def test_an_anchor_needs_something_to_hold_to(recipe, tmp_path):
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    (tmp_path / "BUNDLE.toml").write_text(LARGER)
    with pytest.raises(BundleError, match=r"autoencoder\.anchor.*names none"):
        TrainingRun(load_recipe(tmp_path / "BUNDLE.toml"), device="cpu").run("autoencoder")
