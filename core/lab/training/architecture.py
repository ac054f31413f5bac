"""Fresh components of a small Stable-Diffusion-type pipeline, as a recipe describes them."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from core.lab.training.captions import vocabulary
from core.lab.training.recipe import Autoencoder, Recipe
from core.lab.training.tokenizer import train_tokenizer


def fresh_pipeline(recipe: Recipe) -> StableDiffusionPipeline:
    """Randomly initialised parts from the recipe's seed; the tokenizer already knows the captions' words."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        tokenizer = _tokenizer(recipe)
        return StableDiffusionPipeline(
            vae=_autoencoder(recipe),
            text_encoder=_text_encoder(recipe, tokenizer),
            tokenizer=tokenizer,
            unet=_unet(recipe),
            scheduler=_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def _tokenizer(recipe: Recipe) -> CLIPTokenizer:
    """The tokenizer of the first run. The library breaks ties by chance: trained again, words change their numbers."""
    folder = recipe.path(recipe.work) / "tokenizer"
    if not folder.is_dir():
        trained = train_tokenizer([*vocabulary(), recipe.bundle.identifier], length=recipe.base.tokens)
        trained.save_pretrained(folder)
    kept: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return kept


def _autoencoder(recipe: Recipe) -> AutoencoderKL:
    levels = len(recipe.autoencoder.channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.autoencoder.channels,
        latent_channels=recipe.autoencoder.latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=recipe.bundle.resolution,
        scaling_factor=1.0,
    )
    fix_spread(vae, recipe.autoencoder)
    return vae


@torch.no_grad()
def fix_spread(vae: Any, config: Autoencoder) -> None:
    """Make the posterior's spread the recipe's constant: the half of ``quant_conv`` that predicts it is fixed."""
    half = config.latent_channels
    vae.quant_conv.weight[half:] = 0.0
    vae.quant_conv.bias[half:] = 2 * math.log(config.noise)


def _text_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    width = recipe.base.text_width
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=recipe.base.text_layers,
            num_attention_heads=width // 32,
            max_position_embeddings=recipe.base.tokens,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(recipe: Recipe) -> UNet2DConditionModel:
    channels = recipe.base.channels
    return UNet2DConditionModel(
        sample_size=recipe.bundle.resolution // 2 ** (len(recipe.autoencoder.channels) - 1),
        in_channels=recipe.autoencoder.latent_channels,
        out_channels=recipe.autoencoder.latent_channels,
        block_out_channels=channels,
        layers_per_block=recipe.base.layers,
        # The latents are a picture of half the size: the first level only splits and joins them.
        # Attention on all the others: that is what LiDB has to hold on to.
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (len(channels) - 1)),
        up_block_types=(*("CrossAttnUpBlock2D",) * (len(channels) - 1), "UpBlock2D"),
        cross_attention_dim=recipe.base.text_width,
        attention_head_dim=[max(1, width // recipe.base.head) for width in channels],
        norm_num_groups=16,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
