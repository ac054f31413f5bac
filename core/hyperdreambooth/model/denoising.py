"""The UNet's prediction, and the ONE denoising loss.

Everything that trains here, from the base model itself to one subject's weights, minimises ``denoising_loss``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from core.hyperdreambooth.model.adapters import adapted
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import NO_FACTORS, LayerFactors
from core.hyperdreambooth.model.prompts import Embeddings, encode_tokens
from core.hyperdreambooth.timesteps import UNIFORM, TimestepSampler


def predict(
    bundle: Bundle,
    noisy: Float[Tensor, "n c h w"],
    timesteps: Real[Tensor, " n"],
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
    prompts: Int[Tensor, "n tokens"] | Embeddings,
    factors: LayerFactors = NO_FACTORS,
    *,
    generator: torch.Generator,
    sampler: TimestepSampler = UNIFORM,
    people: int = 1,
    weights: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at timesteps that ``sampler`` spreads over the batch.

    Rows of several ``people`` follow each other: each of them gets the timesteps and the noise that it would get alone.
    ``generator`` lives on the CPU, so that every device draws the same noise.
    """
    noised = draw_noise(bundle, latents, generator=generator, sampler=sampler, people=people)
    return errors(bundle, output_at(bundle, noised, prompts, factors), noised, latents, weights)


@dataclass(frozen=True)
class Noised:
    """Latents with noise, and with how much of which."""

    latents: Float[Tensor, "n c h w"]
    noise: Float[Tensor, "n c h w"]
    timesteps: Int[Tensor, " n"]


def draw_noise(
    bundle: Bundle,
    latents: Float[Tensor, "n c h w"],
    *,
    generator: torch.Generator,
    sampler: TimestepSampler = UNIFORM,
    people: int = 1,
) -> Noised:
    """Each row at a timestep and with noise of its own; people get the same ones. See ``denoising_loss``."""
    rows = len(latents) // people
    places = sampler.draw(rows, generator)
    last = bundle.scheduler.config.num_train_timesteps - 1
    timesteps = (places * (last + 1)).long().clamp(max=last).to(latents.device)  # (k + rand) / rows can round up to 1
    noise = torch.randn(rows, *latents.shape[1:], generator=generator).to(latents)
    return add_noise(bundle, latents, noise.repeat(people, 1, 1, 1), timesteps.repeat(people))


def add_noise(
    bundle: Bundle, latents: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], timesteps: Int[Tensor, " n"]
) -> Noised:
    """These latents with this noise, as much of it as the scheduler has at these timesteps."""
    return Noised(bundle.scheduler.add_noise(latents, noise, timesteps), noise, timesteps)


def output_at(
    bundle: Bundle, noised: Noised, prompts: Int[Tensor, "n tokens"] | Embeddings, factors: LayerFactors = NO_FACTORS
) -> Float[Tensor, "n c h w"]:
    """What the model, changed by ``factors``, makes of noisy latents: see ``predict``.

    ``prompts`` are token ids, or embeddings where ``factors`` do not change them.
    """
    embeddings = prompts if isinstance(prompts, Embeddings) else encode_tokens(bundle, prompts, factors)
    return predict(bundle, noised.latents, noised.timesteps, embeddings, factors)


def errors(
    bundle: Bundle,
    output: Float[Tensor, "n c h w"],
    noised: Noised,
    latents: Float[Tensor, "n c h w"],
    weights: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, " n"]:
    """The squared error of each row's output; ``weights`` (of mean 1) of its places."""
    wanted = noised.noise
    if bundle.scheduler.config.prediction_type == "v_prediction":
        wanted = bundle.scheduler.get_velocity(latents, noised.noise, noised.timesteps)
    error = (output.float() - wanted.float()).pow(2)
    return (error if weights is None else error * weights).mean(dim=(1, 2, 3))


def without_noise(bundle: Bundle, output: Float[Tensor, "n c h w"], noised: Noised) -> Float[Tensor, "n c h w"]:
    """The latents that an output of the model says are under the noise."""
    kept: Tensor = bundle.scheduler.alphas_cumprod.to(output)[noised.timesteps].view(-1, 1, 1, 1)
    if bundle.scheduler.config.prediction_type == "v_prediction":
        return kept.sqrt() * noised.latents - (1 - kept).sqrt() * output
    return (noised.latents - (1 - kept).sqrt() * output) / kept.sqrt()


def loss_at(
    bundle: Bundle,
    timesteps: Int[Tensor, " n"],
    noise: Float[Tensor, "n c h w"],
    latents: Float[Tensor, "n c h w"],
    prompts: Int[Tensor, "n tokens"] | Embeddings,
    factors: LayerFactors = NO_FACTORS,
    weights: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at its timestep and with its noise; ``weights`` (of mean 1) of its places."""
    noised = add_noise(bundle, latents, noise, timesteps)
    return errors(bundle, output_at(bundle, noised, prompts, factors), noised, latents, weights)
