"""Rank-relaxed fast finetuning (section 4.3), of one person or of a whole batch of people at once.

The base is frozen, every person's factors are free. Rows of the batch are ``people x rows``; people do not see each
other: losses are summed over them, AdamW works on each number alone, and gradients are clipped for each person apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import JobCanceled
from core.hyperdreambooth.adapters import repeat
from core.hyperdreambooth.config import FinetuneConfig
from core.hyperdreambooth.diffusion import Bundle, denoising_loss, merged, tokenize
from core.hyperdreambooth.lidb import Factors, Person, relax

PROMPT = "a [V] {noun}"
"""The paper's prompt for training and for the hypernetwork."""

CLIP = 1.0
"""The largest norm of one person's gradient."""


@dataclass(frozen=True)
class Finetuned:
    """Factors with a leading dimension of people, the loss of every step (mean over people), and the step kept."""

    person: Person
    losses: tuple[float, ...]
    kept_step: int


def finetune(
    bundle: Bundle,
    latents: Float[Tensor, "people photos c h w"],
    start: Person,
    config: FinetuneConfig,
    *,
    generator: torch.Generator,
    class_noun: str | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Finetuned:
    """Sharpen ``start`` (factors with a leading dimension of people) on each person's photos.

    In the basis ("lidb") factors stay ``a x r`` and ``r x b``; "lora" first multiplies them out and frees them from the
    basis. The average over the last quarter of the steps is kept: it is steadier than the last step.

    Raises:
        JobCanceled: ``should_stop`` said so; it is asked before every step.
    """
    people = len(latents)
    inside = merged(bundle, start) if config.relaxation == "lora" else start
    factors = _trainable(relax(inside, config.rank, generator=generator))
    optimizer = torch.optim.AdamW(
        _tensors(factors), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    tokens = tokenize(bundle, [PROMPT.format(noun=class_noun or bundle.class_noun)]).expand(people * config.rows, -1)
    average = {name: Factors(f.left.detach().clone(), f.right.detach().clone()) for name, f in factors.items()}
    losses: list[float] = []
    for step in range(config.steps):
        if should_stop is not None and should_stop():
            raise JobCanceled
        rows = _photo_rows(latents, config.rows, step)
        person = repeat(merged(bundle, factors, kind=config.relaxation), config.rows)
        with torch.autocast(bundle.device.type, torch.bfloat16, enabled=bundle.device.type == "cuda"):
            each = denoising_loss(bundle, rows, tokens, person, generator=generator, least_noise=config.least_noise)
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
            on_step(step + 1, config.steps)
    return Finetuned(average, tuple(losses), config.steps)


def _rate(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then down to a fifth: 40 steps leave no time for more."""
    up = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return up * (1 - 0.8 * step / steps)


def _photo_rows(latents: Float[Tensor, "people photos c h w"], rows: int, step: int) -> Float[Tensor, "n c h w"]:
    photos = latents.shape[1]
    chosen = [(step * rows + row) % photos for row in range(rows)]
    return latents[:, chosen].flatten(0, 1)


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
