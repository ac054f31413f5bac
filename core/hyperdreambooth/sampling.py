"""Text to image (section 3, with classifier-free guidance): one batch whose rows may be of different subjects.

    v = v(negative prompt, u) + scale (v(prompt, w) - v(negative prompt, u))

``w`` are the subject's weights; ``u`` are the same, or none, as the bundle's ``sampling.unconditional`` says. The steps
themselves are in ``batching``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import JobCanceled
from core.hyperdreambooth.batching import DenoisingLoop, Drawing
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, merged_factors
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import decode_latents
from core.hyperdreambooth.model.lidb import Factors, LayerFactors
from core.hyperdreambooth.records import Row

Open = Callable[[LidbWeights, Bundle], LayerFactors]
"""Weights to merged factors."""


def generate(
    bundle: Bundle,
    rows: Sequence[Row[LidbWeights]],
    *,
    steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    merge: Open = merged_factors,
) -> UInt8[Tensor, "n h w 3"]:
    """Pictures of all rows, in passes of at most ``bundle.config.sampling.batch``. ``merge`` opens their weights.

    Raises:
        InvalidInput: a size that the autoencoder and the UNet cannot halve often enough.
        JobCanceled: ``should_stop`` returned True; it is called before every step.
    """
    limit = bundle.config.sampling.batch
    taken = steps or bundle.config.sampling.steps
    passes = [rows[start : start + limit] for start in range(0, len(rows), limit)]
    factors = factors_of(bundle, rows, merge)
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


def factors_of(bundle: Bundle, rows: Sequence[Row[LidbWeights]], merge: Open = merged_factors) -> list[LayerFactors]:
    """Each row's merged factors at its strength, zeros for a row without weights; the same weights are merged once."""
    done: dict[int, LayerFactors] = {}
    for row in rows:
        if id(row.weights) not in done:
            done[id(row.weights)] = zeros(bundle) if row.weights is None else merge(row.weights, bundle)
    return [_scaled(done[id(row.weights)], row.strength) for row in rows]


def _scaled(factors: LayerFactors, strength: float | None) -> LayerFactors:
    """Factors whose product is ``strength`` times what it was; None: the same."""
    if strength is None:
        return factors
    return {name: Factors(each.left * strength, each.right) for name, each in factors.items()}


def zeros(bundle: Bundle) -> LayerFactors:
    """Merged factors of rank 1 that change nothing, for rows without a subject in a batch with others."""
    device = bundle.device
    return {
        target.name: Factors(torch.zeros(target.n, 1, device=device), torch.zeros(1, target.m, device=device))
        for target in bundle.targets
    }


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
    report = on_step or (lambda _step: None)
    loop, drawing = DenoisingLoop(bundle), Drawing(bundle, rows, factors, steps=steps, size=size)
    loop.drawings.append(drawing)
    while not drawing.done:
        report(drawing.step)
        loop.step()
    report(steps)
    return drawing.latents
