"""The last stage: the hypernetwork (section 4.2), on a frozen base or on one that learns beside it.

    L = diffusion(H(x), x) + beta |H(x) - w*|^2

``w*`` are pre-optimised weights, where a picture has some. Rank-r factors have no unique form, so the second term
compares the changes themselves, ``A B`` in the basis, which is what the paper's rank 1 does up to a sign.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.hypernetwork import HyperNetwork
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.timesteps import TimestepSampler
from core.lab.training.loop import Losses
from core.lab.training.precision import autocast
from core.lab.training.preoptimize import ReferenceWeights
from core.lab.training.recipe import HyperNetworkTraining
from core.lab.training.rows import Rows

MARGIN, SCALE = 0.2, 16.0
"""CosFace (arXiv 1801.09414): additive cosine margin and scale, lower than the paper's for a 64 px encoder."""


def hypernetwork_losses(
    bundle: Bundle,
    network: HyperNetwork,
    rows: Rows,
    targets: ReferenceWeights,
    config: HyperNetworkTraining,
    generator: torch.Generator,
    *,
    precision: torch.dtype | None = None,
) -> Losses:
    """The loss above of some rows, with an auxiliary loss that teaches the encoder to tell people apart.

    ``precision`` None is float32.
    """
    with autocast(bundle.device, precision):
        features = network.encoder(rows.faces)
        person = network.decode(features)
        who = identity_loss(network, features, rows.labels)
        each = denoising_loss(
            bundle,
            rows.latents,
            rows.tokens,
            bundle.basis.merge(person),
            generator=generator,
            sampler=TimestepSampler(
                config.least_noise, config.noisiest, most_noise=config.most_noise, cleanest=config.cleanest
            ),
        )
    distance = reference_distance(person, targets, rows.seen)
    loss = each.mean() + config.beta * distance + config.identity * who
    return {"loss": loss, "diffusion": each[: len(rows.faces)].mean(), "distance": distance, "identity": who}


def identity_loss(network: HyperNetwork, features: Tensor, labels: Tensor) -> Tensor:
    """CosFace over the identities with several pictures; zero where a batch has none of them (label -1)."""
    known = labels >= 0
    if network.identities is None or not known.any():
        return features.new_zeros(())
    embedding = network.identity(features)[known].float()
    cosines = embedding @ nn.functional.normalize(network.identities, dim=-1).T
    margins = MARGIN * nn.functional.one_hot(labels[known], cosines.shape[-1])
    return nn.functional.cross_entropy(SCALE * (cosines - margins), labels[known])


def reference_distance(person: LayerFactors, targets: ReferenceWeights, seen: Tensor) -> Tensor:
    """Mean squared distance of the changes ``A B`` to the targets', over those rows that have a target."""
    if not targets:
        return torch.zeros(())
    place = {int(picture): index for index, picture in enumerate(targets["pictures"].tolist())}
    pairs = [(row, place[int(picture)]) for row, picture in enumerate(seen) if int(picture) in place]
    if not pairs:
        return torch.zeros(())
    rows, indices = (list(column) for column in zip(*pairs, strict=True))
    total = torch.zeros(())
    for name, factors in person.items():
        left, right = targets[f"{name}/left"][indices], targets[f"{name}/right"][indices]
        change = factors.left[rows].float() @ factors.right[rows].float()
        total = total + (change - (left @ right).to(change)).square().sum(dim=(1, 2)).mean()
    return total
