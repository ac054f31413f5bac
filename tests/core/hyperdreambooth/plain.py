"""Programs that know nothing of this project: pipelines of diffusers as anybody uses them."""

import logging
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from core.hyperdreambooth.formats.lidb_weights import describe
from core.hyperdreambooth.model.lidb import Factors
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import generate
from core.lab.testing import random_pipeline

GUIDANCE, SEED = 3.0, 5
PROMPT = "a pencil sketch of a [V] face"


def narrow_stable_diffusion():
    """A pipeline with all of Stable Diffusion 1.5's layers by name, an eighth as wide, of random weights."""
    few = random_pipeline()
    few.tokenizer.model_max_length = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(40, 80, 160, 160),
            norm_num_groups=8,
            cross_attention_dim=96,
            attention_head_dim=8,
        )
        text = CLIPTextConfig(
            vocab_size=few.text_encoder.config.vocab_size,
            hidden_size=96,
            intermediate_size=384,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=32,
            bos_token_id=few.tokenizer.bos_token_id,
            eos_token_id=few.tokenizer.eos_token_id,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 32, 64, 64),
            norm_num_groups=8,
            layers_per_block=2,
        )
        parts = {"unet": unet, "text_encoder": CLIPTextModel(text), "vae": vae}
    vae.decoder.conv_out.weight.data *= 3  # random decoders paint everything grey
    for module in parts.values():
        module.eval().requires_grad_(False)
    plain = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**parts, tokenizer=few.tokenizer, scheduler=few.scheduler, **plain)


def someone(bundle, *, rank=3, strength=4.0):
    """Weights that change pictures strongly."""
    generator = torch.Generator().manual_seed(1)
    lidb = bundle.config.lidb
    factors = {}
    for target in bundle.targets:
        a, b = target.capped(lidb.a, lidb.b)
        left, right = torch.randn(a, rank, generator=generator), torch.randn(rank, b, generator=generator)
        factors[target.name] = Factors(left * strength / a**0.5, right / b**0.5)
    return describe(bundle, factors, class_noun="face", kept_step=7)


def ours(bundle, weights, *, steps=4):
    """The picture that this project makes, guided as diffusers guides a LoRA."""
    sampling = replace(bundle.config.sampling, unconditional="subject", guidance_limit=0.0)
    as_diffusers = replace(bundle, config=replace(bundle.config, sampling=sampling))
    row = Row(PROMPT, "blurred", weights=weights, seed=SEED, guidance_scale=GUIDANCE)
    return generate(as_diffusers, [row], steps=steps)[0].numpy()


def theirs(pipeline, bundle, file=None, *, steps=4):
    """The picture of a plain pipeline, with the file loaded as anybody would load it."""
    pipeline.set_progress_bar_config(disable=True)
    if file is not None:
        pipeline.load_lora_weights(file)
    made = pipeline(
        PROMPT.replace("[V]", bundle.identifier),
        negative_prompt="blurred",
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        height=bundle.resolution,
        width=bundle.resolution,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    )
    if file is not None:
        pipeline.unload_lora_weights()
    return (made.images[0] * 255).round().astype(np.uint8)


def differ(one, other):
    """The largest difference of two pictures, in levels of 256."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def assert_alike(made, expected, *, without, levels):
    """The pictures differ by so many levels at most; ``without`` the weights there is another one.

    How much they differ is told with ``--log-cli-level=INFO``.
    """
    assert differ(without, expected) > 20, "the weights change the picture"
    apart = differ(made, expected)
    logging.getLogger(__name__).info("largest difference: %d of 255", apart)
    assert apart <= levels
