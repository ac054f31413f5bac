"""Continuous batching: pictures of several requests share denoising steps, and come and go between them.

A ``Drawing`` holds rows that begin at once. Each step of a ``DenoisingLoop`` runs the UNet once for all drawings of
one size, whatever their subjects, their numbers of steps and how far each of them is. A row's picture depends on its
own prompt, weights and seed: its noise, also that which some schedulers add at each step, is drawn on the CPU from its
own generator, and adapters of other rows do not touch it. (Matrix libraries round differently for another batch size:
a pixel may differ by 1 of 255.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import InvalidInput
from core.hyperdreambooth.model.adapters import stack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import predict
from core.hyperdreambooth.model.lidb import NO_FACTORS, LayerFactors
from core.hyperdreambooth.model.prompts import Embeddings, encode_tokens, tokenize
from core.hyperdreambooth.records import Row


@dataclass(frozen=True)
class Part:
    """Rows for the UNet: the latents as it takes them, and each row's factors (none of them: the base model)."""

    noisy: Float[Tensor, "n c h w"]
    timestep: Tensor
    embeddings: Embeddings
    factors: Sequence[LayerFactors]


class Drawing:
    """Rows that begin at once and take the same number of steps: their latents, and how far they are.

    With the bundle's ``sampling.guidance_every`` of 2, the pass without the prompt is made at every other step, and the
    steps between use its last difference to the pass with it.
    """

    @torch.inference_mode()
    def __init__(
        self,
        bundle: Bundle,
        rows: Sequence[Row[Any]],
        factors: Sequence[LayerFactors],
        *,
        steps: int,
        size: tuple[int, int],
    ) -> None:
        """``factors`` are merged, one for each row, or none at all; ``size`` is height and width in pixels.

        Raises:
            InvalidInput: a size that the autoencoder and the UNet cannot halve often enough.
        """
        config = bundle.config.sampling
        self._every, self._both = config.guidance_every, config.unconditional == "subject"
        self._limit = config.guidance_limit
        self.steps, self._factors, self._number = steps, list(factors), 0
        self._scheduler = type(bundle.scheduler).from_config(bundle.scheduler.config)
        self._scheduler.set_timesteps(steps, device=bundle.device)
        self._timesteps: Tensor = self._scheduler.timesteps
        generators = [torch.Generator("cpu").manual_seed(row.seed) for row in rows]
        self.latents: Tensor = _noise(bundle, generators, size) * self._scheduler.init_noise_sigma
        self._step = _seeded_step(self._scheduler, generators)
        scales = [config.guidance_scale if row.guidance_scale is None else row.guidance_scale for row in rows]
        self._guidance = torch.tensor(scales, device=bundle.device).view(-1, 1, 1, 1)
        self._is_guided = any(scale != 1 for scale in scales)
        self._difference: Tensor | None = None
        self._below = config.subject_below * self._scheduler.config.num_train_timesteps
        self._texts, self._base_texts = self._encode(bundle, rows)

    @property
    def done(self) -> bool:
        """Whether the latents are finished."""
        return self._number == len(self._timesteps)

    @property
    def step(self) -> int:
        """How many of the steps have been taken; some schedulers pass through the UNet several times for one."""
        return self._number * self.steps // len(self._timesteps)

    def parts(self) -> list[Part]:
        """What the next step needs of the UNet: the pass with the prompt, then the one without, if it needs that."""
        timestep = self._timesteps[self._number]
        rows = len(self.latents)
        noisy = self._scheduler.scale_model_input(self.latents, timestep)
        is_personal = bool(self._factors) and bool(timestep < self._below)
        texts = self._texts if is_personal else self._base_texts
        factors = self._factors if is_personal else []
        found = [Part(noisy, timestep.expand(rows), texts.of(slice(rows)), factors)]
        if self._is_guided and (self._difference is None or self._number % self._every == 0):
            own = factors if self._both else []
            found.append(Part(noisy, timestep.expand(rows), texts.of(slice(rows, None)), own))
        return found

    def advance(self, outputs: Sequence[Float[Tensor, "n c h w"]]) -> None:
        """Take the step, with the UNet's output for each of ``parts()``."""
        timestep = self._timesteps[self._number]
        guided = conditioned = outputs[0]
        if len(outputs) == 2:
            self._difference = _limited(conditioned - outputs[1], self._limit)
        if self._difference is not None:
            guided = conditioned + (self._guidance - 1) * self._difference
        self.latents = self._step(guided, timestep, self.latents).prev_sample
        self._number += 1
        if self._number < len(self._timesteps) and (timestep < self._below) != (
            self._timesteps[self._number] < self._below
        ):
            self._difference = None  # from here on other weights count

    def _encode(self, bundle: Bundle, rows: Sequence[Row[Any]]) -> tuple[Embeddings, Embeddings]:
        """Prompts, then negative prompts: as the subjects' weights change them, and as the base model has them."""
        tokens = tokenize(bundle, [row.prompt for row in rows] + [row.negative_prompt for row in rows])
        named: list[LayerFactors] = [
            {name: pair for name, pair in each.items() if name.startswith("text_")} for each in self._factors
        ]
        changed = stack(named * 2 if self._both else named) if any(named) else NO_FACTORS
        base = bool(self._timesteps[0] >= self._below) or not changed
        plain = encode_tokens(bundle, tokens) if base else None
        texts = encode_tokens(bundle, tokens, changed) if changed else plain
        assert texts is not None
        return texts, plain or texts


class DenoisingLoop:
    """The drawings in progress on a device. Drawings may be added between any two steps."""

    def __init__(self, bundle: Bundle) -> None:
        self.drawings: list[Drawing] = []
        self._bundle = bundle
        self._limit = 4 * bundle.config.sampling.batch
        self._stacked: tuple[list[LayerFactors], LayerFactors] = ([], NO_FACTORS)

    @property
    def rows(self) -> int:
        """How many pictures are in progress."""
        return sum(len(each.latents) for each in self.drawings)

    def step(self) -> list[Drawing]:
        """One step of the drawing that has waited longest and of all others of its size. Returns those it was.

        A device that is out of memory gets the rows in smaller pieces, from then on.
        """
        if not self.drawings:
            return []
        size = self.drawings[0].latents.shape[1:]
        chosen = [each for each in self.drawings if each.latents.shape[1:] == size]
        self._advance(chosen)
        waiting = [each for each in self.drawings if each not in chosen]
        self.drawings = waiting + [each for each in chosen if not each.done]
        if not self.drawings:
            self._stacked = ([], NO_FACTORS)
        return chosen

    def discard(self, drawing: Drawing) -> None:
        """Take a drawing out, finished or not."""
        self.drawings = [each for each in self.drawings if each is not drawing]
        self._stacked = ([], NO_FACTORS)

    @torch.inference_mode()
    def _advance(self, chosen: list[Drawing]) -> None:
        needed = [(drawing, part) for drawing in chosen for part in drawing.parts()]
        needed.sort(key=lambda pair: not pair[1].factors)  # rows beyond the factors are the base model's
        parts = [part for _, part in needed]
        outputs = self._predict(parts).split([len(part.noisy) for part in parts])
        for drawing in chosen:
            drawing.advance([output for (of, _), output in zip(needed, outputs, strict=True) if of is drawing])

    def _predict(self, parts: Sequence[Part]) -> Tensor:
        noisy, timesteps = torch.cat([p.noisy for p in parts]), torch.cat([p.timestep for p in parts])
        texts = _joined([part.embeddings for part in parts])
        factors = [each for part in parts for each in part.factors]
        while True:
            try:
                pieces = [slice(start, start + self._limit) for start in range(0, len(noisy), self._limit)]
                made = [
                    predict(self._bundle, noisy[at], timesteps[at], texts.of(at), self._stack(factors[at]))
                    for at in pieces
                ]
                return made[0] if len(made) == 1 else torch.cat(made)
            except torch.OutOfMemoryError:
                if min(self._limit, len(noisy)) == 1:
                    raise
                self._limit = min(self._limit, len(noisy)) // 2

    def _stack(self, factors: list[LayerFactors]) -> LayerFactors:
        """The factors as one batch; made anew only when the rows change."""
        before, stacked = self._stacked
        if len(before) != len(factors) or any(a is not b for a, b in zip(before, factors, strict=True)):
            stacked = stack(factors) if factors else NO_FACTORS
            self._stacked = (factors, stacked)
        return stacked


def _limited(difference: Float[Tensor, "n c h w"], limit: float) -> Float[Tensor, "n c h w"]:
    """Rows of a root mean square of at most ``limit``; 0 is none."""
    if not limit:
        return difference
    size = difference.square().mean((1, 2, 3), keepdim=True).sqrt()
    return difference * (limit / size.clamp(min=1e-12)).clamp(max=1)


def _joined(texts: Sequence[Embeddings]) -> Embeddings:
    pooled = [each.pooled for each in texts if each.pooled is not None]
    return Embeddings(torch.cat([each.tokens for each in texts]), torch.cat(pooled) if pooled else None)


def _seeded_step(scheduler: Any, generators: list[torch.Generator]) -> Callable[..., Any]:
    """The scheduler's step; where it adds noise, each row's from its own generator."""
    step: Callable[..., Any] = scheduler.step
    if hasattr(scheduler, "noise_sampler_seed"):  # Brownian paths have seeds instead
        scheduler.noise_sampler_seed = [generator.initial_seed() for generator in generators]
    return partial(step, generator=generators) if "generator" in inspect.signature(step).parameters else step


def _noise(bundle: Bundle, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    multiple, factor = bundle.pixels_multiple, bundle.pixels_per_latent
    if size[0] % multiple or size[1] % multiple:
        raise InvalidInput(f"height and width must be multiples of {multiple} for this base model", field="height")
    shape = (bundle.unet.config.in_channels, size[0] // factor, size[1] // factor)
    noise: Tensor = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    return noise.to(bundle.device, bundle.unet.dtype)
