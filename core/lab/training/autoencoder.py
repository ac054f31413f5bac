"""The autoencoder. Whatever it loses, no personalizing brings back, so it is trained first and measured.

L1 + L2 on the pixels, more in the middle of the frame where the face is; latents get noise of a fixed spread and a
small penalty on their size, so that what matters less takes less space and the decoder forgives the diffusion model's
errors. Its decoder may then be trained on alone: what it makes of given latents can become better without changing
anything that learnt from them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import to_pixels
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.training.data import Faces
from core.lab.training.loop import Losses
from core.lab.training.precision import autocast, quickest
from core.lab.training.recipe import Autoencoder, Decoder


def autoencoder_losses(
    bundle: Bundle, faces: Faces, config: Autoencoder, names: tuple[str, ...], generator: torch.Generator
) -> Losses:
    """Reconstruction of a batch of photos, a share of them stylised, half of them mirrored."""
    pixels = _draw(faces, config.optimization.batch, config.styled, names, generator).to(bundle.device)
    mean, error = _through(bundle, pixels, config.noise, generator)
    reconstruction = _reconstruction(error, centre_weights(pixels.shape[-1], config.centre).to(pixels))
    loss = reconstruction + config.penalty * mean.float().square().mean()
    return {"loss": loss, "reconstruction": reconstruction}


def decoder_losses(
    bundle: Bundle,
    faces: Faces,
    config: Decoder,
    first: Autoencoder,
    names: tuple[str, ...],
    generator: torch.Generator,
) -> Losses:
    """Reconstruction as in the ``first`` training, and of edges; latents as they are."""
    pixels = _draw(faces, config.optimization.batch, first.styled, names, generator).to(bundle.device)
    _, error = _through(bundle, pixels, config.noise, generator)
    weights = centre_weights(pixels.shape[-1], first.centre).to(pixels)
    losses = {"reconstruction": _reconstruction(error, weights), "edges": _edges(error, weights)}
    return {"loss": losses["reconstruction"] + config.edges * losses["edges"], **losses}


def set_scaling(bundle: Bundle, faces: Faces, *, pictures: int = 512) -> None:
    """Measure the latents' spread and write its inverse into the autoencoder's ``scaling_factor``."""
    chosen = np.linspace(0, len(faces) - 1, pictures).astype(int)
    with torch.inference_mode():
        latents = bundle.vae.encode(
            to_pixels(torch.from_numpy(faces.pictures[chosen])).to(bundle.device)
        ).latent_dist.mean
    bundle.vae.register_to_config(scaling_factor=1.0 / float(latents.std()))


def centre_weights(side: int, centre: float) -> Float[Tensor, "side side"]:
    """Weights of mean 1: ``1 + centre`` where the face of the framing is, falling to 1 at the border."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    weights = 1 + centre * torch.exp(-((((x - 0.5) / 0.2) ** 2 + ((y - 0.58) / 0.24) ** 2) ** 2))
    return weights / weights.mean()


def _through(
    bundle: Bundle, pixels: Float[Tensor, "n 3 h w"], noise: float, generator: torch.Generator
) -> tuple[Float[Tensor, "n c h2 w2"], Float[Tensor, "n 3 h w"]]:
    """The latents' means, and how far off is what comes out of them with ``noise`` added."""
    with autocast(bundle.device, quickest(bundle.device)):
        mean = bundle.vae.encode(pixels).latent_dist.mean
        drawn = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = bundle.vae.decode(mean + noise * drawn).sample
    return mean, decoded.float() - pixels


def _reconstruction(error: Float[Tensor, "n 3 h w"], weights: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    return ((error.abs() + error.square()) * weights).mean()


def _edges(error: Float[Tensor, "n 3 h w"], weights: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    """The error of the differences of neighbours, across and down."""
    across, down = error.diff(dim=3).abs() * weights[:, 1:], error.diff(dim=2).abs() * weights[1:]
    return across.mean() + down.mean()


def _draw(
    faces: Faces, batch: int, share: float, names: tuple[str, ...], generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    chosen = torch.randint(len(faces), (batch,), generator=generator).numpy()
    pictures = faces.pictures[chosen]
    pictures[::2] = pictures[::2, :, ::-1].copy()
    groups = torch.randint(len(names), (3,), generator=generator).tolist()
    styled = np.array_split(np.arange(round(batch * share)), len(groups))
    for style, part in zip(groups, styled, strict=True):
        if len(part):
            pictures[part] = STYLES[names[style]].apply(pictures[part])
    return to_pixels(torch.from_numpy(pictures))
