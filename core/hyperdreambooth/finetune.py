"""Rank-relaxed fast finetuning (section 4.3), of one person or of a whole batch of people at once.

The base is frozen, every person's factors are free. Rows of the batch are ``people x rows``; people do not see each
other: each gets the timesteps and noise it would get alone, losses are summed over them, the optimizer works on each
person alone, and gradients are clipped for each person apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import BundleError, JobCanceled
from core.hyperdreambooth.model.adapters import repeat
from core.hyperdreambooth.model.bundle import Bundle, denoising_loss, encode_pictures, merged, tokenize
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.lidb import Factors, Person, relax, truncate
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
"""By the name that a bundle gives them: the factors of everybody and a learning rate to an optimizer."""


@dataclass(frozen=True)
class Finetuned:
    """Factors with a leading dimension of people, the loss of every step (mean over people), and the step kept."""

    person: Person
    losses: tuple[float, ...]
    kept_step: int


@dataclass(frozen=True)
class Shown:
    """The latents that finetuning learns from: the photos, and each of ``config.styles`` once (or none of them)."""

    photos: Float[Tensor, "people photos c h w"]
    styled: Float[Tensor, "people styles c h w"]


@torch.no_grad()
def show(bundle: Bundle, photos: UInt8[Tensor, "people photos h w 3"], config: FinetuneConfig) -> Shown:
    """Encode each person's photos; where ``config`` has styled rows, also through the filters, photos taking turns.

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
        return Shown(latents, latents[:, :0])
    filtered = [STYLES[name].apply(photos[:, number % several].numpy()) for number, name in enumerate(names)]
    styled = torch.stack([encode_pictures(bundle, torch.from_numpy(pictures)) for pictures in filtered], dim=1)
    return Shown(latents, styled)


def finetune(
    bundle: Bundle,
    shown: Shown,
    start: Person,
    config: FinetuneConfig,
    *,
    generator: torch.Generator,
    class_noun: str | None = None,
    on_step: Callable[[int, int, Person], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Finetuned:
    """Sharpen ``start`` (factors with a leading dimension of people) on what is ``shown`` of each person.

    In the basis ("lidb") factors stay ``a x r`` and ``r x b``; "lora" first multiplies them out and frees them from the
    basis. Of a start of a higher rank than ``config.rank`` the closest of that rank is taken. The average over the last
    quarter of the steps is kept: it is steadier than the last step. ``on_step`` gets the step, of how many, and the
    factors as they are then, which the next step changes.

    Raises:
        JobCanceled: ``should_stop`` said so; it is asked before every step.
    """
    people = len(shown.photos)
    inside = merged(bundle, start) if config.relaxation == "lora" else start
    factors = _trainable(_with_rank(inside, config.rank, generator))
    optimizer = OPTIMIZERS[config.optimizer](_tensors(factors), config.learning_rate)
    tokens = tokenize(bundle, _prompts(config, class_noun or bundle.class_noun))
    average = {name: Factors(f.left.detach().clone(), f.right.detach().clone()) for name, f in factors.items()}
    last = _styled_rows(shown, config) if config.styled_noisiest else 0
    timesteps = TimestepSampler(config.least_noise, last=last, most_noise=config.most_noise)
    losses: list[float] = []
    for step in range(config.steps):
        if should_stop is not None and should_stop():
            raise JobCanceled
        rows, asked = _rows(shown, config, step)
        person = repeat(merged(bundle, factors, kind=config.relaxation), config.rows)
        with torch.autocast(bundle.device.type, torch.bfloat16, enabled=bundle.device.type == "cuda"):
            each = denoising_loss(
                bundle,
                rows,
                tokens[asked * people],
                person,
                generator=generator,
                sampler=timesteps,
                people=people,
            )
            loss = each.mean() * people
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        _clip_each(factors)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        optimizer.step()
        losses.append(float(loss.detach()) / people)
        _average(average, factors, restart=step < 0.75 * config.steps)
        if on_step is not None:
            on_step(step + 1, config.steps, factors)
    return Finetuned(average, tuple(losses), config.steps)


def _with_rank(person: Person, rank: int, generator: torch.Generator) -> Person:
    if all(factors.left.shape[-1] <= rank for factors in person.values()):
        return relax(person, rank, generator=generator)
    return {name: truncate(factors, rank) for name, factors in person.items()}


def _rate(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then down to a fifth: 40 steps leave no time for more."""
    up = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return up * (1 - 0.8 * step / steps)


def _prompts(config: FinetuneConfig, noun: str) -> list[str]:
    """The plain prompt, then that of each style."""
    plain = PROMPT.format(noun=noun)
    return [plain, *(STYLES[name].phrasings[0].format(subject=plain) for name in config.styles)]


def _rows(shown: Shown, config: FinetuneConfig, step: int) -> tuple[Float[Tensor, "n c h w"], list[int]]:
    """The latents of one step, and which prompt each of a person's rows has; photos and styles take turns."""
    photos, styles = shown.photos.shape[1], shown.styled.shape[1]
    through = _styled_rows(shown, config)
    plain = config.rows - through
    chosen = [(step * plain + row) % photos for row in range(plain)]
    looks = [(step * through + row) % styles for row in range(through)]
    latents = torch.cat([shown.photos[:, chosen], shown.styled[:, looks]], dim=1)
    return latents.flatten(0, 1), [0] * plain + [1 + look for look in looks]


def _styled_rows(shown: Shown, config: FinetuneConfig) -> int:
    """How many of a person's rows show a style: the last ones."""
    return config.styled_rows if shown.styled.shape[1] else 0


def _trainable(person: Person) -> dict[str, Factors]:
    return {
        name: Factors(f.left.detach().clone().requires_grad_(), f.right.detach().clone().requires_grad_())
        for name, f in person.items()
    }


def _tensors(person: Person) -> list[Tensor]:
    return [tensor for factors in person.values() for tensor in (factors.left, factors.right)]


def _clip_each(person: Person) -> None:
    gradients = [tensor.grad for tensor in _tensors(person) if tensor.grad is not None]
    norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    scale = (CLIP / norms.clamp(min=1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))


@torch.no_grad()
def _average(average: Person, person: Person, *, restart: bool) -> None:
    for name, factors in person.items():
        for mean, now in ((average[name].left, factors.left), (average[name].right, factors.right)):
            mean.lerp_(now, 1.0 if restart else 0.2)
