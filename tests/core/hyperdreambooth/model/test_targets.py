import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from core.errors import BundleError
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.lidb import Basis
from core.hyperdreambooth.model.target import Target
from core.hyperdreambooth.model.targets import find_targets, targets_hash, variables
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def stable_diffusion() -> dict[str, nn.Module]:
    """The layers of SD 1.5 without memory for its weights: its UNet's defaults and CLIP ViT-L/14's text
    configuration.
    """
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        return {"unet": unet, "text_encoder": CLIPTextModel(text)}


@pytest.mark.parametrize(
    ("preset", "layers", "numbers"),
    [
        ("attention", 176, 26_400),
        ("attention+geglu", 192, 28_800),
        ("convolutions", 64, 9_600),
        ("up-convolutions", 39, 5_850),
    ],
)
def test_stable_diffusion_has_the_paper_s_number_of_variables(stable_diffusion, preset, layers, numbers):
    targets = find_targets(stable_diffusion, preset)
    assert len(targets) == layers
    assert variables(targets, a=100, b=50, rank=1) == numbers


def test_a_plain_rank_one_lora_of_these_targets_has_the_paper_s_386k(stable_diffusion):
    targets = find_targets(stable_diffusion, "attention+geglu")
    assert sum(target.n + target.m for target in targets) == 385_344


def test_text_encoders_come_first_and_the_order_is_hashed(stable_diffusion):
    targets = find_targets(stable_diffusion, "attention")
    assert targets[0].name.startswith("text_encoder.")
    assert targets[-1].name.startswith("unet.")
    assert targets_hash(targets) != targets_hash(targets[::-1])


def test_a_convolution_is_a_matrix_of_channels_by_places(stable_diffusion):
    targets = {target.name: target for target in find_targets(stable_diffusion, "convolutions")}
    assert targets["unet.down_blocks.1.resnets.0.conv1"] == Target(
        "unet.down_blocks.1.resnets.0.conv1", 640, 320 * 9, kernel=3
    )
    assert targets["unet.down_blocks.1.resnets.0.conv_shortcut"].m == 320
    assert {target.name.split(".")[0] for target in targets.values()} == {"unet"}, "the text encoder has none"
    assert not any("proj" in name or name.endswith(("conv_in", "conv_out")) for name in targets)


def test_the_convolutions_of_the_up_blocks_are_those_of_all_that_are_there(stable_diffusion):
    everywhere = find_targets(stable_diffusion, "convolutions")
    above = tuple(target for target in everywhere if target.name.startswith("unet.up_blocks."))
    assert find_targets(stable_diffusion, "up-convolutions") == above


def test_narrow_layers_cap_the_basis():
    assert Target("unet.x", 64, 32).capped(100, 50) == (64, 32)


def test_a_component_without_targets_is_an_error():
    with pytest.raises(BundleError, match="unet has no layer"):
        find_targets({"unet": nn.Linear(2, 2)}, "attention")


def test_every_target_of_a_bundle_has_a_basis():
    bundle = random_bundle()
    assert list(Basis(bundle.targets, LidbConfig())) == [target.name for target in bundle.targets]
