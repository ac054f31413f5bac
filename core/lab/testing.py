"""A tiny random bundle for tests of logic: the real classes of a Stable Diffusion pipeline, a few thousand weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import (
    BundleConfig,
    FinetuneConfig,
    HyperNetworkConfig,
    LidbConfig,
    SamplingConfig,
)
from core.hyperdreambooth.model.hypernetwork import TransformerHyperNetwork
from core.hyperdreambooth.model.loading import from_pipeline

TINY = BundleConfig(
    name="tiny-random",
    resolution=16,
    lidb=LidbConfig(a=12, b=6),
    finetune=FinetuneConfig(rank=3, steps=3, steps_from_zero=4, rows=2),
    sampling=SamplingConfig(steps=3, guidance_scale=2.0, batch=4),
)


def random_bundle(*, seed: int = 0, with_hypernetwork: bool = True, config: BundleConfig = TINY) -> Bundle:
    """A bundle of random weights on the CPU; the same seed makes the same one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bundle = from_pipeline(random_pipeline(), config)
        for module in (bundle.vae, bundle.unet, bundle.text_encoder):
            module.eval().requires_grad_(False)
        if not with_hypernetwork:
            return bundle
        small = HyperNetworkConfig(
            resolution=16,
            stem=(8, 8),
            width=16,
            heads=2,
            encoder_layers=1,
            decoder_layers=1,
            head_width=8,
            rank=2,
        )
        return replace(bundle, hypernetwork=TransformerHyperNetwork(small, bundle.shapes).eval().requires_grad_(False))


def random_pipeline() -> StableDiffusionPipeline:
    """A StableDiffusionPipeline of 8 x 8 latents that knows characters only."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
