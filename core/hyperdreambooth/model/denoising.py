"""The UNet's prediction, and the ONE denoising loss.

Everything that trains here, from the base model itself to one subject's weights, minimises ``denoising_loss``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.hyperdreambooth.model.adapters import adapted
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import NO_FACTORS, LayerFactors
from core.hyperdreambooth.model.prompts import Embeddings, encode_tokens
from core.hyperdreambooth.timesteps import UNIFORM, TimestepSampler


def predict(
    bundle: Bundle,
    noisy: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    embeddings: Embeddings,
    factors: LayerFactors = NO_FACTORS,
) -> Float[Tensor, "n c h w"]:
    """The UNet's output (noise or velocity, as the scheduler has it), as changed by ``factors`` (merged).

    SDXL is told that the picture is whole and of its own size.
    """
    added = None
    if embeddings.pooled is not None:
        height, width = (side * bundle.pixels_per_latent for side in noisy.shape[2:])
        ids = torch.tensor([height, width, 0, 0, height, width], device=noisy.device, dtype=noisy.dtype)
        added = {"text_embeds": embeddings.pooled, "time_ids": ids.expand(len(noisy), -1)}
    with adapted({"unet": bundle.unet}, factors):
        output: Tensor = bundle.unet(
            noisy, timesteps, encoder_hidden_states=embeddings.tokens, added_cond_kwargs=added
        ).sample
    return output


def denoising_loss(
    bundle: Bundle,
    latents: Float[Tensor, "n c h w"],
    tokens: Int[Tensor, "n tokens"],
    factors: LayerFactors = NO_FACTORS,
    *,
    generator: torch.Generator,
    sampler: TimestepSampler = UNIFORM,
    people: int = 1,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at timesteps that ``sampler`` spreads over the batch.

    Rows of several ``people`` follow each other: each of them gets the timesteps and the noise that it would get alone.
    ``generator`` lives on the CPU, so that every device draws the same noise.
    """
    rows = len(latents) // people
    places = sampler.draw(rows, generator)
    last = bundle.scheduler.config.num_train_timesteps - 1
    timesteps = (places * (last + 1)).long().clamp(max=last).to(latents.device)  # (k + rand) / rows can round up to 1
    noise = torch.randn(rows, *latents.shape[1:], generator=generator).to(latents)
    return loss_at(bundle, timesteps.repeat(people), noise.repeat(people, 1, 1, 1), latents, tokens, factors)


def loss_at(
    bundle: Bundle,
    timesteps: Int[Tensor, " n"],
    noise: Float[Tensor, "n c h w"],
    latents: Float[Tensor, "n c h w"],
    tokens: Int[Tensor, "n tokens"],
    factors: LayerFactors = NO_FACTORS,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at its timestep and with its noise."""
    noisy = bundle.scheduler.add_noise(latents, noise, timesteps)
    embeddings = encode_tokens(bundle, tokens, factors)
    predicted = predict(bundle, noisy, timesteps, embeddings, factors)
    if bundle.scheduler.config.prediction_type == "v_prediction":
        noise = bundle.scheduler.get_velocity(latents, noise, timesteps)
    return (predicted.float() - noise.float()).pow(2).mean(dim=(1, 2, 3))
