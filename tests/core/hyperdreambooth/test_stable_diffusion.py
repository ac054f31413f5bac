"""The method on Stable Diffusion 1.5's real configuration, with random weights: about 1 billion of them."""

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from core.errors import BundleError
from core.hyperdreambooth.formats.lidb_weights import to_bytes
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import BundleConfig, FinetuneConfig
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.hyperdreambooth.model.targets import variables
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions, Row
from core.hyperdreambooth.sampling import generate
from core.lab.testing import random_pipeline


@pytest.fixture(scope="module")
def stable_diffusion() -> Bundle:
    tokenizer = random_pipeline().tokenizer
    tokenizer.model_max_length = 77
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
            "text_encoder": CLIPTextModel(config),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                scaling_factor=0.18215,
            ),
        }
    generator = torch.Generator().manual_seed(0)
    for module in parts.values():
        module.to_empty(device="cpu")
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.data.uniform_(-0.02, 0.02, generator=generator)
        module.eval().requires_grad_(False)
    embeddings = parts["text_encoder"].get_submodule("embeddings")
    embeddings.position_ids = torch.arange(77)[None]
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    finetuning = FinetuneConfig(steps_from_zero=1, rows=1)
    return from_pipeline(pipeline, BundleConfig(name="sd15-random", resolution=64, finetune=finetuning))


@pytest.mark.slow
def test_one_photo_to_a_file_of_120_kb_and_a_picture(stable_diffusion):
    assert len(stable_diffusion.targets) == 192
    assert variables(stable_diffusion.targets, a=100, b=50, rank=1) == 28_800
    photo = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    made = personalize(stable_diffusion, photo, PersonalizeOptions())
    assert made.preview is None
    assert len(to_bytes(made.weights)) <= 120_000
    picture = generate(stable_diffusion, [Row("a [V] face", weights=made.weights, seed=1)], steps=1)
    assert picture.shape == (1, 64, 64, 3)


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match="stable-diffusion-v1-5"):
        load_bundle("stable-diffusion-v1-5/stable-diffusion-v1-5")
