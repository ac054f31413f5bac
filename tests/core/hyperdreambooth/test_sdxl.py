"""SDXL: two text encoders, a summary of the prompt and the picture's size. Its real layers, a fraction as wide."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from core.hyperdreambooth.formats import exports, lidb_file
from core.hyperdreambooth.formats.lidb_weights import layout_of, to_bytes
from core.hyperdreambooth.model.config import BundleConfig, FinetuneConfig
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.model.targets import find_targets, variables
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions, Row
from core.hyperdreambooth.sampling import generate
from core.lab.testing import random_pipeline
from core.lab.training.export import export_bundle
from core.lab.training.recipe import load_large_recipe
from tests.core.hyperdreambooth.plain import GUIDANCE, PROMPT, SEED, assert_alike, differ, ours, someone

UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
CONFIG = BundleConfig(
    name="narrow-xl", resolution=64, finetune=FinetuneConfig(rank=2, steps=2, steps_from_zero=2, rows=2)
)


def text_config(vocabulary: int, width: int, layers: int, **special: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=width,
        **special,
    )


def narrow_sdxl() -> StableDiffusionXLPipeline:
    few = random_pipeline()
    few.tokenizer.model_max_length = 32
    other = random_pipeline().tokenizer
    other.model_max_length = 32
    other.pad_token = "!"
    special = {
        "bos_token_id": other.bos_token_id,
        "eos_token_id": other.eos_token_id,
        "max_position_embeddings": 32,
    }
    words = few.text_encoder.config.vocab_size
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            **UNET,
            sample_size=8,
            block_out_channels=(20, 40, 80),
            norm_num_groups=4,
            cross_attention_dim=96,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 64,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 32, 32, 32),
            norm_num_groups=8,
        )
        parts = {
            "unet": unet,
            "vae": vae,
            "text_encoder": CLIPTextModel(text_config(words, 32, 12, **special)),
            "text_encoder_2": CLIPTextModelWithProjection(text_config(words, 64, 32, **special)),
        }
    vae.decoder.conv_out.weight.data *= 3  # random decoders paint everything grey
    for module in parts.values():
        module.eval().requires_grad_(False)
    return StableDiffusionXLPipeline(
        **parts, tokenizer=few.tokenizer, tokenizer_2=other, scheduler=few.scheduler, add_watermarker=False
    )


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return narrow_sdxl()


@pytest.fixture(scope="module")
def bundle(pipeline):
    return from_pipeline(pipeline, CONFIG)


def theirs(pipeline, file=None, *, negative="blurred") -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    if file is not None:
        pipeline.load_lora_weights(file)
    made = pipeline(
        PROMPT.replace("[V]", "sks"),
        negative_prompt=negative,
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    )
    if file is not None:
        pipeline.unload_lora_weights()
    return (made.images[0] * 255).round().astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_a_plain_pipeline_draws_the_same_picture(pipeline, bundle, tmp_path, file_format):
    weights = someone(bundle, rank=2)
    file = tmp_path / "person.safetensors"
    made = exports.export(lidb_file.read(to_bytes(weights)), layout_of(bundle), file_format, precision="fp32")
    file.write_bytes(made)
    assert_alike(theirs(pipeline, file), ours(bundle, weights), without=theirs(pipeline), levels=2)


@pytest.mark.slow
def test_nothing_said_is_zero_as_the_pipeline_has_it(pipeline, bundle):
    assert bundle.zero_empty
    row = Row(PROMPT, "", seed=SEED, guidance_scale=GUIDANCE)
    made = generate(bundle, [row], steps=4)[0].numpy()
    assert differ(made, theirs(pipeline, negative=None)) <= 2
    said = generate(replace(bundle, zero_empty=False), [row], steps=4)[0].numpy()
    assert differ(said, theirs(pipeline, negative="")) <= 2


def test_both_encoders_are_personalized_and_a_person_changes(bundle):
    assert tokenize(bundle, ["a"]).shape == (1, 64)
    photo = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    made = personalize(bundle, photo, PersonalizeOptions())
    assert made.weights.metadata.bundle == "narrow-xl"
    components = [target.name.split(".")[0] for target in bundle.targets]
    assert list(dict.fromkeys(components)) == ["text_encoder", "text_encoder_2", "unet"]


def test_an_exported_bundle_opens_again(bundle, tmp_path):
    export_bundle(bundle, tmp_path)
    opened = load_bundle(tmp_path, device="cpu")
    assert opened.targets_hash == bundle.targets_hash
    assert opened.fingerprint == bundle.fingerprint
    assert opened.zero_empty


def test_its_recipe_can_be_read_and_keeps_the_size():
    recipe = load_large_recipe(Path("core/lab/training/recipes/sdxl.toml"))
    assert recipe.slices == 32
    assert recipe.bundle.finetune.rank == 1


def test_sdxl_has_806_targets():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            **UNET,
            block_out_channels=(320, 640, 1280),
            cross_attention_dim=2048,
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        components = {
            "unet": unet,
            "text_encoder": CLIPTextModel(text_config(100, 768, 12)),
            "text_encoder_2": CLIPTextModelWithProjection(text_config(100, 1280, 32)),
        }
    targets = find_targets(components, "attention+geglu")
    assert len(targets) == 806
    assert variables(targets, a=100, b=50, rank=1) == 120_900
