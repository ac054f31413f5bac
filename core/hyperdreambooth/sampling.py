"""Text to image (section 3, with classifier-free guidance): one batch whose rows may be of different subjects.

    v = v(negative prompt, u) + scale (v(prompt, w) - v(negative prompt, u))

``w`` are the subject's weights; ``u`` are the same, or none, as the bundle's ``sampling.unconditional`` says.

A row's picture depends on its own prompt, weights and seed: its noise is drawn on the CPU from its own seed, and
adapters of other rows do not touch it. (Matrix libraries may still round differently for another batch size.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import InvalidInput, JobCanceled
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, merged_factors
from core.hyperdreambooth.model.adapters import stack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import predict
from core.hyperdreambooth.model.latents import decode_latents
from core.hyperdreambooth.model.lidb import Factors, LayerFactors
from core.hyperdreambooth.model.prompts import encode_tokens, tokenize
from core.hyperdreambooth.records import Row


def generate(
    bundle: Bundle,
    rows: Sequence[Row[LidbWeights]],
    *,
    steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> UInt8[Tensor, "n h w 3"]:
    """Pictures of all rows, in passes of at most ``bundle.config.sampling.batch``.

    Raises:
        InvalidInput: a size that the autoencoder and the UNet cannot halve often enough.
        JobCanceled: ``should_stop`` returned True; it is called before every step.
    """
    limit = bundle.config.sampling.batch
    taken = steps or bundle.config.sampling.steps
    passes = [rows[start : start + limit] for start in range(0, len(rows), limit)]
    factors = factors_of(bundle, rows)
    pictures = []
    for number, part in enumerate(passes):

        def report(step: int, done: int = number * taken) -> None:
            if should_stop is not None and should_stop():
                raise JobCanceled
            if on_step is not None:
                on_step(done + step, len(passes) * taken)

        size = (height or bundle.resolution, width or bundle.resolution)
        chosen = factors[number * limit : number * limit + len(part)]
        latents = sample_latents(bundle, part, chosen, steps=taken, size=size, on_step=report)
        pictures.append(decode_latents(bundle, latents).cpu())
    return torch.cat(pictures)


def factors_of(bundle: Bundle, rows: Sequence[Row[LidbWeights]]) -> list[LayerFactors]:
    """Each row's merged factors, zeros for a row without weights; the same weights are merged once."""
    done: dict[int, LayerFactors] = {}
    for row in rows:
        if id(row.weights) not in done:
            done[id(row.weights)] = zeros(bundle) if row.weights is None else merged_factors(row.weights, bundle)
    return [done[id(row.weights)] for row in rows]


def zeros(bundle: Bundle) -> LayerFactors:
    """Merged factors of rank 1 that change nothing, for rows without a subject in a batch with others."""
    return {
        target.name: Factors(
            torch.zeros(target.n, 1, device=bundle.device), torch.zeros(1, target.m, device=bundle.device)
        )
        for target in bundle.targets
    }


@torch.inference_mode()
def sample_latents(
    bundle: Bundle,
    rows: Sequence[Row[LidbWeights]],
    factors: Sequence[LayerFactors],
    *,
    steps: int,
    size: tuple[int, int],
    on_step: Callable[[int], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """One pass of the sampler. ``factors`` are merged, one for each row; ``size`` is height and width in pixels."""
    scheduler = type(bundle.scheduler).from_config(bundle.scheduler.config)
    scheduler.set_timesteps(steps, device=bundle.device)
    both = bundle.config.sampling.unconditional == "subject"
    stacked = stack([*factors, *factors] if both else [*factors])  # rows beyond the factors are the base model's
    texts = [row.prompt for row in rows] + [row.negative_prompt for row in rows]
    embeddings = encode_tokens(bundle, tokenize(bundle, texts), stacked)
    default = bundle.config.sampling.guidance_scale
    scales = [default if row.guidance_scale is None else row.guidance_scale for row in rows]
    guidance = torch.tensor(scales, device=bundle.device).view(-1, 1, 1, 1)
    latents: Tensor = _noise(bundle, [row.seed for row in rows], size) * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps):
        if on_step is not None:
            on_step(number)
        twice = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        conditioned, without = predict(bundle, twice, timestep.expand(len(twice)), embeddings, stacked).chunk(2)
        guided = without + guidance * (conditioned - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    if on_step is not None:
        on_step(steps)
    return latents


def _noise(bundle: Bundle, seeds: Sequence[int], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    factor = bundle.pixels_per_latent
    multiple = factor * 2 ** (len(bundle.unet.config.block_out_channels) - 1)
    if size[0] % multiple or size[1] % multiple:
        raise InvalidInput(f"height and width must be multiples of {multiple} for this base model", field="height")
    shape = (bundle.unet.config.in_channels, size[0] // factor, size[1] // factor)
    drawn = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    noise: Tensor = torch.stack(drawn).to(bundle.device, bundle.unet.dtype)
    return noise
