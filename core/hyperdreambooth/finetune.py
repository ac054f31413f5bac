"""Rank-relaxed fast finetuning (section 4.3), of one person or of a whole batch of people at once.

The base is frozen, every person's factors are free. A batch has ``people x rows`` rows. People do not see each other:
each gets the timesteps and noise it would get alone, losses are summed over them, the optimizer works on each person's
factors alone, and gradients are clipped for each person apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import BundleError, JobCanceled
from core.hyperdreambooth.model.adapters import repeat
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.model.lidb import Factors, LayerFactors, with_rank
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.muon import Muon
from core.hyperdreambooth.styles.styles import STYLES
from core.hyperdreambooth.timesteps import TimestepSampler

PROMPT = "a [V] {noun}"
"""The paper's prompt for training and for the hypernetwork."""

CLIP = 1.0
"""The largest norm of one person's gradient."""

OPTIMIZERS: Mapping[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {
    "adamw": lambda factors, rate: torch.optim.AdamW(factors, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    "muon": Muon,
}
"""By its name in a bundle: everybody's factors and a learning rate to an optimizer."""


@dataclass(frozen=True)
class Finetuned:
    """Factors with a leading dimension of people, the loss of every step (mean over people), and the step kept."""

    factors: LayerFactors
    losses: tuple[float, ...]
    kept_step: int


@dataclass(frozen=True)
class TrainingLatents:
    """The latents that finetuning learns from: the photos, and each of ``config.styles`` once (or none of them)."""

    photos: Float[Tensor, "people photos c h w"]
    styled: Float[Tensor, "people styles c h w"]

    def rows(self, config: FinetuneConfig, step: int) -> tuple[Float[Tensor, "n c h w"], list[int]]:
        """The latents of one step, and which prompt each of a person's rows has; photos and styles take turns."""
        photos, styles = self.photos.shape[1], self.styled.shape[1]
        through = self.styled_rows(config)
        plain = config.rows - through
        photo_of = [(step * plain + row) % photos for row in range(plain)]
        style_of = [(step * through + row) % styles for row in range(through)]
        latents = torch.cat([self.photos[:, photo_of], self.styled[:, style_of]], dim=1)
        return latents.flatten(0, 1), [0] * plain + [1 + style for style in style_of]

    def styled_rows(self, config: FinetuneConfig) -> int:
        """How many of a person's rows show a style: the last ones."""
        return config.styled_rows if self.styled.shape[1] else 0


@torch.no_grad()
def encode_training_pictures(
    bundle: Bundle, photos: UInt8[Tensor, "people photos h w 3"], config: FinetuneConfig
) -> TrainingLatents:
    """The latents of each person's photos; where ``config`` has styled rows, also of filtered ones, photos in turn.

    Raises:
        BundleError: ``config`` names a style that there is no filter for, or leaves no row for the photo itself.
    """
    people, several = photos.shape[:2]
    latents = encode_pictures(bundle, photos.flatten(0, 1)).unflatten(0, (people, several))
    names = config.styles if config.styled_rows else ()
    if names and config.styled_rows >= config.rows:
        raise BundleError("finetune.styled_rows must be fewer than finetune.rows: the photo itself needs one")
    unknown = [name for name in names if name not in STYLES]
    if unknown:
        raise BundleError(f"finetune.styles has {unknown[0]!r}, which is none of {', '.join(STYLES)}")
    if not names:
        return TrainingLatents(latents, latents[:, :0])
    filtered = [STYLES[name].apply(photos[:, number % several].numpy()) for number, name in enumerate(names)]
    styled = torch.stack([encode_pictures(bundle, torch.from_numpy(pictures)) for pictures in filtered], dim=1)
    return TrainingLatents(latents, styled)


def finetune(
    bundle: Bundle,
    pictures: TrainingLatents,
    start: LayerFactors,
    config: FinetuneConfig,
    *,
    generator: torch.Generator,
    class_noun: str | None = None,
    on_step: Callable[[int, int, LayerFactors], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Finetuned:
    """Finetune ``start`` (factors with a leading dimension of people) at ``config.rank`` on each person's pictures.

    The average over the last quarter of the steps is kept: it is steadier than the last step. ``on_step``
    gets the step, the number of steps, and the factors as they are then, which the next step changes.

    Raises:
        JobCanceled: ``should_stop`` returned True; it is called before every step.
    """
    people = len(pictures.photos)
    factors = _trainable(with_rank(start, config.rank, generator=generator))
    optimizer = OPTIMIZERS[config.optimizer](_tensors(factors), config.learning_rate)
    tokens = tokenize(bundle, _prompts(config, class_noun or bundle.class_noun))
    average = {name: Factors(f.left.detach().clone(), f.right.detach().clone()) for name, f in factors.items()}
    last = pictures.styled_rows(config) if config.styled_noisiest else 0
    timesteps = TimestepSampler(config.least_noise, last=last, most_noise=config.most_noise)
    losses: list[float] = []
    for step in range(config.steps):
        if should_stop is not None and should_stop():
            raise JobCanceled
        latents, prompts = pictures.rows(config, step)
        with torch.autocast(bundle.device.type, torch.bfloat16, enabled=bundle.device.type == "cuda"):
            each = denoising_loss(
                bundle,
                latents,
                tokens[prompts * people],
                repeat(bundle.basis.merge(factors), config.rows),
                generator=generator,
                sampler=timesteps,
                people=people,
            )
            loss = each.mean() * people
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        _clip_each(factors)
        optimizer.step()
        losses.append(float(loss.detach()) / people)
        _average(average, factors, restart=step < 0.75 * config.steps)
        if on_step is not None:
            on_step(step + 1, config.steps, factors)
    return Finetuned(average, tuple(losses), config.steps)


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: up over a tenth of the steps, then down to a fifth."""
    up = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return up * (1 - 0.8 * step / steps)


def _prompts(config: FinetuneConfig, noun: str) -> list[str]:
    """The plain prompt, then that of each style."""
    plain = PROMPT.format(noun=noun)
    return [plain, *(STYLES[name].phrasings[0].format(subject=plain) for name in config.styles)]


def _trainable(factors: LayerFactors) -> dict[str, Factors]:
    return {
        name: Factors(f.left.detach().clone().requires_grad_(), f.right.detach().clone().requires_grad_())
        for name, f in factors.items()
    }


def _tensors(factors: LayerFactors) -> list[Tensor]:
    return [tensor for pair in factors.values() for tensor in (pair.left, pair.right)]


def _clip_each(factors: LayerFactors) -> None:
    """Clip the gradient of each person, over all of the person's factors, to the norm ``CLIP``."""
    gradients = [tensor.grad for tensor in _tensors(factors) if tensor.grad is not None]
    norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    scale = (CLIP / norms.clamp(min=1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))


@torch.no_grad()
def _average(average: LayerFactors, factors: LayerFactors, *, restart: bool) -> None:
    """Move the average a fifth of the way to the factors, or all of it."""
    for name, pair in factors.items():
        for mean, now in ((average[name].left, pair.left), (average[name].right, pair.right)):
            mean.lerp_(now, 1.0 if restart else 0.2)
