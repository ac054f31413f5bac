"""Bundles of random weights in the shapes of real architectures, and people of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import BundleConfig, FinetuneConfig, SamplingConfig
from core.hyperdreambooth.model.lidb import Factors

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
}
"""SDXL's UNet; its second text encoder's summary is left out, which is one small layer."""
NARROW = {**SD15, "sample_size": 8, "block_out_channels": (40, 80, 160, 160), "norm_num_groups": 8}
"""All layers of SD 1.5's UNet, an eighth as wide: as many kernels as there."""


@dataclass(frozen=True)
class Shape:
    """A UNet's configuration and the size of its pictures."""

    name: str
    unet: dict[str, Any]
    side: int
    width: int = 768
    layers: int = 12
    tokens: int = 77


SHAPES = (Shape("Stable Diffusion 1.5", SD15, 512), Shape("SDXL", SDXL, 1024, width=2048, layers=2))
NARROW_SHAPE = Shape("narrow", {**NARROW, "cross_attention_dim": 96}, 64, width=96, layers=2, tokens=16)


class CharacterTokenizer:
    """Prompts to numbers of characters: real tokenizers have files."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, texts: str | list[str], **_: object) -> SimpleNamespace:
        """Ids of `model_max_length` for each text."""
        every = [texts] if isinstance(texts, str) else texts
        rows = [[ord(character) % 128 for character in text[: self.model_max_length]] for text in every]
        padded = [row + [0] * (self.model_max_length - len(row)) for row in rows]
        return SimpleNamespace(input_ids=torch.tensor(padded))


def random_bundle(shape: Shape, *, device: str = "cpu", unet: Callable[..., nn.Module] | None = None) -> Bundle:
    """A bundle of this shape; the weights are small random numbers. On the device `meta` there are none.

    `unet` makes another model than a UNet of the shape's configuration.
    """
    text = CLIPTextConfig(
        vocab_size=128,
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=8,
        max_position_embeddings=shape.tokens,
        bos_token_id=126,
        eos_token_id=127,
    )
    with torch.device("meta"):
        denoiser, encoder = (unet or UNet2DConditionModel)(**shape.unet), CLIPTextModel(text)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512) if shape.side >= 512 else (8, 8, 8, 8),
            norm_num_groups=8,
            layers_per_block=2,
        )
    for module in (denoiser, encoder, vae):
        _fill(module, device)
    for each in encoder.modules():
        if "position_ids" in dict(each.named_buffers(recurse=False)):
            each.position_ids = torch.arange(shape.tokens, device=device)[None]
    config = BundleConfig(
        name=shape.name,
        resolution=shape.side,
        finetune=FinetuneConfig(rows=4),
        sampling=SamplingConfig(steps=30, batch=16),
    )
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, beta_schedule="scaled_linear")
    bundle = Bundle("random", config, vae, encoder, CharacterTokenizer(shape.tokens), denoiser, scheduler)
    bundle.__dict__["fingerprint"] = "0" * 16  # that of so many numbers takes minutes
    return bundle


def someone(bundle: Bundle, *, seed: int, rank: int = 4, strength: float = 1.0) -> LidbWeights:
    """Random weights of a person."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, (a, b) in bundle.shapes.items():
        left, right = torch.randn(a, rank, generator=generator), torch.randn(rank, b, generator=generator)
        factors[name] = Factors(left * strength / a**0.5, right / b**0.5)
    return describe(bundle, factors, class_noun="face", kept_step=1)


def plain(bundle: Bundle, *, steps: int) -> Bundle:
    """The bundle, guided as diffusers guides a LoRA: so many steps, the subject's weights in both passes."""
    sampling = replace(
        bundle.config.sampling, steps=steps, unconditional="subject", subject_below=1.0, guidance_every=1
    )
    return bundle.configured(replace(bundle.config, sampling=sampling))


def _fill(module: Any, device: str) -> None:
    if device != "meta":
        module.to_empty(device=device)
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.data.uniform_(-0.02, 0.02)
    module.eval().requires_grad_(False)
