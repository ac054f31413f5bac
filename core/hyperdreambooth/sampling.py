"""Text to image (section 3, with classifier-free guidance): one batch whose rows may be of different people.

    v = v(empty prompt, u) + scale (v(prompt, person) - v(empty prompt, u))

``u`` is the person or nobody, as the bundle's ``sampling.unconditional`` has it.

A row's picture depends on its own prompt, person and seed: its noise is drawn on the CPU from its own seed, and
adapters of other rows do not touch it. (Matrix libraries may still round differently for another batch size.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import InvalidInput, JobCanceled
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, merged_factors
from core.hyperdreambooth.model.adapters import stack
from core.hyperdreambooth.model.bundle import Bundle, decode_latents, encode_tokens, predict, tokenize
from core.hyperdreambooth.model.lidb import Factors, Person


@dataclass(frozen=True)
class Row:
    """One picture: ``[V]`` in the prompt stands for the person of ``weights`` (None: nobody)."""

    prompt: str
    negative_prompt: str = ""
    weights: LidbWeights | None = None
    seed: int = 0
    guidance_scale: float | None = None


def generate(
    bundle: Bundle,
    rows: Sequence[Row],
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
        JobCanceled: ``should_stop`` said so; it is asked before every step.
    """
    limit = bundle.config.sampling.batch
    taken = steps or bundle.config.sampling.steps
    passes = [rows[start : start + limit] for start in range(0, len(rows), limit)]
    people = merge_people(bundle, rows)
    pictures = []
    for number, part in enumerate(passes):

        def report(step: int, done: int = number * taken) -> None:
            if should_stop is not None and should_stop():
                raise JobCanceled
            if on_step is not None:
                on_step(done + step, len(passes) * taken)

        size = (height or bundle.resolution, width or bundle.resolution)
        chosen = [people[start] for start in range(number * limit, number * limit + len(part))]
        latents = sample_latents(bundle, part, chosen, steps=taken, size=size, on_step=report)
        pictures.append(decode_latents(bundle, latents).cpu())
    return torch.cat(pictures)


def merge_people(bundle: Bundle, rows: Sequence[Row]) -> list[Person]:
    """Each row's merged factors; equal weights are multiplied out once, nobody's are zero."""
    done: dict[int, Person] = {}
    for row in rows:
        if id(row.weights) not in done:
            done[id(row.weights)] = _nobody(bundle) if row.weights is None else merged_factors(row.weights, bundle)
    return [done[id(row.weights)] for row in rows]


@torch.inference_mode()
def sample_latents(
    bundle: Bundle,
    rows: Sequence[Row],
    people: Sequence[Person],
    *,
    steps: int,
    size: tuple[int, int],
    on_step: Callable[[int], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """One pass of the sampler; ``people`` are merged factors, one for each row; ``size`` is in pixels."""
    scheduler = type(bundle.scheduler).from_config(bundle.scheduler.config)
    scheduler.set_timesteps(steps, device=bundle.device)
    everywhere = bundle.config.sampling.unconditional == "person"
    person = stack([*people, *people] if everywhere else [*people])  # rows beyond the factors are nobody's
    texts = [row.prompt for row in rows] + [row.negative_prompt for row in rows]
    embeddings = encode_tokens(bundle, tokenize(bundle, texts), person)
    default = bundle.config.sampling.guidance_scale
    scales = [default if row.guidance_scale is None else row.guidance_scale for row in rows]
    guidance = torch.tensor(scales, device=bundle.device).view(-1, 1, 1, 1)
    latents: Tensor = _noise(bundle, [row.seed for row in rows], size) * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps):
        if on_step is not None:
            on_step(number)
        twice = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        conditioned, without = predict(bundle, twice, timestep.expand(len(twice)), embeddings, person).chunk(2)
        guided = without + guidance * (conditioned - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    if on_step is not None:
        on_step(steps)
    return latents


def _noise(bundle: Bundle, seeds: Sequence[int], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    factor = 2 ** (len(bundle.vae.config.block_out_channels) - 1)
    multiple = factor * 2 ** (len(bundle.unet.config.block_out_channels) - 1)
    if size[0] % multiple or size[1] % multiple:
        raise InvalidInput(f"height and width must be multiples of {multiple} for this base model", field="height")
    shape = (bundle.unet.config.in_channels, size[0] // factor, size[1] // factor)
    drawn = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    noise: Tensor = torch.stack(drawn).to(bundle.device, bundle.unet.dtype)
    return noise


def _nobody(bundle: Bundle) -> dict[str, Factors]:
    zero = {t.name: Factors(torch.zeros(t.n, 1), torch.zeros(1, t.m)) for t in bundle.targets}
    return {name: Factors(f.left.to(bundle.device), f.right.to(bundle.device)) for name, f in zero.items()}
