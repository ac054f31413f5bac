"""Pictures, pixels and latents.

Pictures are uint8 ``n h w 3`` outside and float in [-1, 1], ``n 3 h w``, inside ("pixels"); latents are scaled by the
autoencoder's ``scaling_factor``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from core.hyperdreambooth.model.bundle import Bundle


def encode_pictures(bundle: Bundle, pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n c h8 w8"]:
    """Pictures to scaled latents, without sampling noise."""
    pixels = to_pixels(pictures).to(bundle.device, bundle.vae.dtype)
    latents: Tensor = bundle.vae.encode(pixels).latent_dist.mean * bundle.vae.config.scaling_factor
    return latents


def decode_latents(bundle: Bundle, latents: Float[Tensor, "n c h8 w8"]) -> UInt8[Tensor, "n h w 3"]:
    """Scaled latents to pictures."""
    return to_pictures(bundle.vae.decode(latents / bundle.vae.config.scaling_factor).sample)


def to_pixels(pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """0..255 to [-1, 1], channels first."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n h w 3"]:
    """[-1, 1] to 0..255, channels last."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def resize(pictures: UInt8[Tensor, "n h w 3"], side: int) -> UInt8[Tensor, "n side side 3"]:
    """Square pictures at another size, antialiased."""
    if pictures.shape[1:3] == (side, side):
        return pictures
    pixels = pictures.permute(0, 3, 1, 2).float()
    scaled = nn.functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def centre_weights(height: int, width: int, centre: float) -> Float[Tensor, "h w"]:
    """Weights of mean 1: ``1 + centre`` where the face of the framing is, falling to 1 at the border."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    weights: Tensor = 1 + centre * torch.exp(-((((x - 0.5) / 0.2) ** 2 + ((y - 0.58) / 0.24) ** 2) ** 2))
    return weights / weights.mean()
