"""What of a person the hypernetwork has learnt: how much of the denoising loss its prediction takes away.

At the noisy end of the schedule a picture is whatever the weights say it is (ground, hair, light); who it is gets
decided in the middle. A prediction that gains at one end alone draws the look of the photo and not its person.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from core.hyperdreambooth.finetune import PROMPT
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import loss_at
from core.hyperdreambooth.model.lidb import NO_FACTORS
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.prediction import predict_weights
from core.lab.evaluation.methods import photo_latents
from core.lab.evaluation.report import Mean, interval, plus_minus
from core.lab.evaluation.subjects import Subject

TIMESTEPS = (980, 800, 600, 400, 200)
"""Of 1,000; where the loss is looked at."""

GROUP = 24
"""People whose losses are computed together."""


@torch.no_grad()
def gains(bundle: Bundle, chosen: Sequence[Subject], *, seed: int = 0) -> dict[int, Mean]:
    """The share of the loss of the subjects' photos that their predicted weights take away, by timestep.

    The same prompt and noise with the weights as without; intervals over subjects.

    Raises:
        BundleError: the bundle has no hypernetwork.
    """
    parts = [_losses(bundle, chosen[first : first + GROUP], seed + first) for first in range(0, len(chosen), GROUP)]
    without, with_them = torch.cat(parts, dim=2).numpy()
    return {
        step: interval((without[place] - with_them[place]) / without[place].mean())
        for place, step in enumerate(TIMESTEPS)
    }


def gain_table(found: dict[int, Mean]) -> str:
    """Markdown: one line, in per cent."""
    cells = (plus_minus(100 * mean, None if half is None else 100 * half, digits=1) for mean, half in found.values())
    return (
        f"| timestep | {' | '.join(map(str, found))} |\n{'|---' * (len(found) + 1)}|\n"
        f"| loss less with the prediction, % | {' | '.join(cells)} |\n"
    )


def _losses(bundle: Bundle, chosen: Sequence[Subject], seed: int) -> Float[Tensor, "2 timesteps people"]:
    """Without the predicted weights, and with them."""
    photos = [torch.from_numpy(subject.photos) for subject in chosen]
    people = bundle.basis.merge(predict_weights(bundle, photos))
    latents = photo_latents(bundle, chosen)
    tokens = tokenize(bundle, [PROMPT.format(noun=bundle.class_noun)]).expand(len(chosen), -1)
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    steps = [torch.full((len(chosen),), step, device=latents.device) for step in TIMESTEPS]
    return torch.stack(
        [torch.stack([loss_at(bundle, t, noise, latents, tokens, who) for t in steps]) for who in (NO_FACTORS, people)]
    ).cpu()
