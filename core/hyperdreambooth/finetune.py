"""Rank-relaxed fast finetuning (section 4.3), of one person or of a whole batch of people at once.

The base is frozen, every person's factors are free. A batch has ``people x rows`` rows. People do not see each other:
each gets the timesteps and noise it would get alone, losses are summed over them, the optimizer works on each person's
factors alone, and gradients are clipped for each person apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from core.errors import BundleError, JobCanceled
from core.hyperdreambooth.appearance import words_of
from core.hyperdreambooth.faces.photo_words import mirrored
from core.hyperdreambooth.model.adapters import repeat
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.latents import centre_weights, encode_pictures
from core.hyperdreambooth.model.lidb import Factors, LayerFactors, with_rank
from core.hyperdreambooth.model.prompts import Embeddings, encode_tokens, tokenize
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
"""By its name in a bundle: a function of all factors and a learning rate."""


@dataclass(frozen=True)
class Finetuned:
    """Factors with a leading dimension of people, the loss of every step (mean over people), and the step kept."""

    factors: LayerFactors
    losses: tuple[float, ...]
    kept_step: int


@dataclass(frozen=True)
class TrainingLatents:
    """The latents that finetuning learns from: the photos, and each of ``config.styles`` once (or none of them).

    ``words`` say of each person's photos what is to be seen and is not who it is of ("looking left"): what the prompt
    says need not be learnt. None are said where it is empty.
    """

    photos: Float[Tensor, "people photos c h w"]
    styled: Float[Tensor, "people styles c h w"]
    words: Sequence[Sequence[Sequence[str]]] = ()

    def rows(self, config: FinetuneConfig, step: int) -> tuple[Float[Tensor, "n c h w"], list[int]]:
        """The latents of one step, and which of ``_prompts`` each of a person's rows has.

        Photos and styles take turns; where the recipe mirrors photos, every second row of them is.
        """
        photos, styles = self.photos.shape[1], self.styled.shape[1]
        through = self.styled_rows(config)
        plain = config.rows - through
        photo_of = [(step * plain + row) % photos for row in range(plain)]
        style_of = [(step * through + row) % styles for row in range(through)]
        plain_rows = self.photos[:, photo_of]
        mirrored = [config.mirrored and (step + row) % 2 == 1 for row in range(plain)]
        if any(mirrored):
            plain_rows[:, mirrored] = plain_rows[:, mirrored].flip(-1)
        prompts = [2 * photo + int(flip) for photo, flip in zip(photo_of, mirrored, strict=True)]
        latents = torch.cat([plain_rows, self.styled[:, style_of]], dim=1)
        return latents.flatten(0, 1), prompts + [2 * photos + style for style in style_of]

    @property
    def said(self) -> Sequence[Sequence[Sequence[str]]]:
        """The words of each person's photos; none where they are not known."""
        people, photos = self.photos.shape[:2]
        return self.words or [[()] * photos] * people

    def styled_rows(self, config: FinetuneConfig) -> int:
        """How many of a person's rows show a style: the last ones."""
        return config.styled_rows if self.styled.shape[1] else 0


@torch.no_grad()
def encode_training_pictures(
    bundle: Bundle, photos: UInt8[Tensor, "people photos h w 3"], config: FinetuneConfig
) -> TrainingLatents:
    """The latents of each person's photos, and words for what is seen in them where ``config`` is worded.

    Where it has styled rows, also the latents of filtered photos, photos in turn.

    Raises:
        BundleError: ``config`` names a style that there is no filter for, or leaves no row for the photo itself.
    """
    people, several = photos.shape[:2]
    latents = encode_pictures(bundle, photos.flatten(0, 1)).unflatten(0, (people, several))
    words = [words_of(person) for person in photos] if config.worded else ()
    names = config.styles if config.styled_rows else ()
    if names and config.styled_rows >= config.rows:
        raise BundleError("finetune.styled_rows must be fewer than finetune.rows: the photo itself needs one")
    unknown = [name for name in names if name not in STYLES]
    if unknown:
        raise BundleError(f"finetune.styles has {unknown[0]!r}, which is none of {', '.join(STYLES)}")
    if not names:
        return TrainingLatents(latents, latents[:, :0], words)
    filtered = [STYLES[name].apply(photos[:, number % several].numpy()) for number, name in enumerate(names)]
    styled = torch.stack([encode_pictures(bundle, torch.from_numpy(pictures)) for pictures in filtered], dim=1)
    return TrainingLatents(latents, styled, words)


class PromptRows:
    """Each person's prompts for every step: encoded once, or as tokens where the text encoder is personalized too."""

    @torch.no_grad()
    def __init__(self, bundle: Bundle, prompts: Sequence[Sequence[str]]) -> None:
        self._each = len(prompts[0])
        self._tokens = torch.cat([tokenize(bundle, each) for each in prompts])
        is_fixed = not any(target.name.startswith("text_encoder") for target in bundle.targets)
        self._texts = encode_tokens(bundle, self._tokens) if is_fixed else None

    def of_each_person(self, chosen: Sequence[int]) -> Int[Tensor, "n tokens"] | Embeddings:
        """The prompts of these numbers of the first person, of the next one, and so on."""
        rows = [start + number for start in range(0, len(self._tokens), self._each) for number in chosen]
        return self._tokens[rows] if self._texts is None else self._texts.of(rows)


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

    The average over the last quarter of the steps is kept: it is steadier than the last
    step. ``on_step`` gets the step, the number of steps, and the factors as they are then, which the next step may
    change.

    Raises:
        JobCanceled: ``should_stop`` returned True; it is called before every step.
    """
    people = len(pictures.photos)
    fixed, free = _parted(with_rank(start, config.rank, generator=generator), config)
    factors = _trainable(free)
    optimizer = OPTIMIZERS[config.optimizer](_tensors(factors), config.learning_rate)
    noun = class_noun or bundle.class_noun
    prompts = PromptRows(bundle, [_prompts(config, noun, each) for each in pictures.said])
    places = face_weights(pictures.photos, config.centre)
    average = {name: Factors(f.left.detach().clone(), f.right.detach().clone()) for name, f in factors.items()}
    last = pictures.styled_rows(config) if config.styled_noisiest else 0
    timesteps = TimestepSampler(config.least_noise, last=last, most_noise=config.most_noise)
    losses: list[Tensor] = []
    for step in range(config.steps):
        if should_stop is not None and should_stop():
            raise JobCanceled
        latents, chosen = pictures.rows(config, step)
        with torch.autocast(bundle.device.type, torch.bfloat16, enabled=bundle.device.type == "cuda"):
            each = denoising_loss(
                bundle,
                latents,
                prompts.of_each_person(chosen),
                repeat(bundle.basis.merge(_beside(fixed, factors)), config.rows),
                generator=generator,
                sampler=timesteps,
                people=people,
                weights=places,
            )
            loss = each.mean() * people
        _update(optimizer, factors, loss, config.learning_rate * _rate(step, config.steps))
        losses.append(loss.detach() / people)
        _average(average, factors, restart=step < 0.75 * config.steps)
        if on_step is not None:
            on_step(step + 1, config.steps, _beside(fixed, factors, config.strength))
    kept = _beside(fixed, average, config.strength)
    return Finetuned(kept, tuple(torch.stack(losses).tolist()) if losses else (), config.steps)


def _update(optimizer: torch.optim.Optimizer, factors: LayerFactors, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    _clip_each(factors)
    optimizer.step()


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: up over a tenth of the steps, then down to a fifth."""
    up = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
    return up * (1 - 0.8 * step / steps)


def _prompts(config: FinetuneConfig, noun: str, photos: Sequence[Sequence[str]]) -> list[str]:
    """For each photo its prompt and the mirrored one's, from its words; then that of each style."""
    subject = PROMPT.format(noun=noun)
    said = [", ".join([subject, *each]) for words in photos for each in (words, mirrored(words))]
    return [*said, *(STYLES[name].phrasings[0].format(subject=subject) for name in config.styles)]


def face_weights(latents: Tensor, centre: float) -> Float[Tensor, "h w"] | None:
    """Weights of mean 1 of the places of a picture in the framing: ``1 + centre`` on the face, 1 at the border."""
    if not centre:
        return None
    return centre_weights(latents.shape[-2], latents.shape[-1], centre).to(latents)


def _parted(factors: LayerFactors, config: FinetuneConfig) -> tuple[LayerFactors, LayerFactors]:
    """The ranks that stay as they are, and those that are learned, as they are before they are weakened."""
    if not (config.from_prediction and config.fixed_ranks):
        return {}, factors
    count = config.fixed_ranks
    fixed = {n: Factors(f.left[..., :count].clone(), f.right[..., :count, :].clone()) for n, f in factors.items()}
    free = {n: Factors(f.left[..., count:] / config.strength, f.right[..., count:, :]) for n, f in factors.items()}
    return fixed, free


def _beside(fixed: LayerFactors, free: LayerFactors, strength: float = 1.0) -> LayerFactors:
    """Both as one, the free ranks times ``strength``; those alone, as they are, where none is fixed."""
    if not fixed:
        return free
    return {
        name: Factors(torch.cat([f.left, strength * free[name].left], -1), torch.cat([f.right, free[name].right], -2))
        for name, f in fixed.items()
    }


def _trainable(factors: LayerFactors) -> dict[str, Factors]:
    return {
        name: Factors(f.left.detach().clone().requires_grad_(), f.right.detach().clone().requires_grad_())
        for name, f in factors.items()
    }


def _tensors(factors: LayerFactors) -> list[Tensor]:
    return [tensor for pair in factors.values() for tensor in (pair.left, pair.right)]


@torch.no_grad()
def _clip_each(factors: LayerFactors) -> None:
    """Clip the gradient of each person, over all of the person's factors, to the norm ``CLIP``."""
    gradients = [tensor.grad for tensor in _tensors(factors) if tensor.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    scale = (CLIP / torch.linalg.vector_norm(norms, dim=0).clamp(min=1e-12)).clamp(max=1.0)
    torch._foreach_mul_(gradients, [scale.view(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients])


@torch.no_grad()
def _average(average: LayerFactors, factors: LayerFactors, *, restart: bool) -> None:
    """Move the average a fifth of the way to the factors, or all of it."""
    torch._foreach_lerp_(_tensors(average), _tensors(factors), 1.0 if restart else 0.2)
