"""The loss of the hypernetwork (section 4.2), on a frozen base or on one that learns beside it.

    L = diffusion(H(x), x) + beta |H(x) - w*|^2

``w*`` are pre-optimised weights, where a picture has some. Rank-r factors have no unique form, so the second term
compares the changes themselves, ``A B`` in the basis, which is what the paper's rank 1 does up to a sign.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import BundleError
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import Noised, draw_noise, errors, output_at, without_noise
from core.hyperdreambooth.model.hypernetwork import HyperNetwork
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.timesteps import TimestepSampler
from core.lab.training.loop import Losses
from core.lab.training.precision import autocast
from core.lab.training.preoptimize import ReferenceWeights
from core.lab.training.recipe import HyperNetworkTraining
from core.lab.training.rows import Rows
from core.lab.training.teacher import FaceTeacher

MARGIN, SCALE = 0.2, 16.0
"""CosFace (arXiv 1801.09414): additive cosine margin and scale, lower than the paper's for a 64 px encoder."""


def hypernetwork_losses(
    bundle: Bundle,
    network: HyperNetwork,
    rows: Rows,
    references: ReferenceWeights,
    config: HyperNetworkTraining,
    generator: torch.Generator,
    *,
    precision: torch.dtype | None = None,
    teacher: FaceTeacher | None = None,
) -> Losses:
    """The loss above of some rows, with two auxiliary ones: one teaches the encoder to tell people apart; the other is
    what ``teacher`` sees, who needs the network to be given its numbers. ``precision`` None is float32.
    """
    with autocast(bundle.device, precision):
        features = network.encoder(rows.faces)
        factors = network.decode(features)
        identity = identity_loss(network, features, rows.labels)
        sampler = TimestepSampler(
            config.least_noise, config.noisiest, most_noise=config.most_noise, cleanest=config.cleanest
        )
        noised = draw_noise(bundle, rows.latents, generator=generator, sampler=sampler)
        output = output_at(bundle, noised, rows.tokens, bundle.basis.merge(factors))
        each = errors(bundle, output, noised, rows.latents)
    taught = _taught(bundle, output, noised, rows, config, teacher)
    distance = reference_distance(factors, references, rows.seen)
    loss = each.mean() + config.beta * distance + config.identity * identity + config.taught * taught
    return {
        "loss": loss,
        "diffusion": each[: len(rows.faces)].mean(),
        "distance": distance,
        "identity": identity,
        "taught": taught,
    }


def _taught(
    bundle: Bundle,
    output: Tensor,
    noised: Noised,
    rows: Rows,
    config: HyperNetworkTraining,
    teacher: FaceTeacher | None,
) -> Float[Tensor, ""]:
    """How far the teacher's numbers of the first photos are from those that the network was given.

    Pictures in a style are left out: their faces are not as it knows them.
    """
    if not config.taught:
        return torch.zeros(())
    if teacher is None:
        raise BundleError("hypernetwork.taught needs data.teacher, whose numbers the network is given")
    photos = rows.plain.nonzero().flatten()[: config.taught_rows]
    if not len(photos):
        return torch.zeros(())
    clean = without_noise(bundle, output, noised)
    made: Tensor = bundle.vae.decode(clean[photos].float() / bundle.vae.config.scaling_factor).sample
    distance: Tensor = (teacher(made)[0] - rows.faces[photos]).norm(dim=1).mean()
    return distance


def identity_loss(network: HyperNetwork, features: Tensor, labels: Tensor) -> Tensor:
    """CosFace over the identities with several pictures; zero where a batch has none of them (label -1)."""
    known = labels >= 0
    if network.identities is None or not known.any():
        return features.new_zeros(())
    embedding = network.identity(features)[known].float()
    cosines = embedding @ nn.functional.normalize(network.identities, dim=-1).T
    margins = MARGIN * nn.functional.one_hot(labels[known], cosines.shape[-1])
    return nn.functional.cross_entropy(SCALE * (cosines - margins), labels[known])


def reference_distance(factors: LayerFactors, references: ReferenceWeights, seen: Tensor) -> Tensor:
    """Mean squared distance of the changes ``A B`` to those of w*, over the rows whose picture has some."""
    if not references:
        return torch.zeros(())
    place = {int(picture): index for index, picture in enumerate(references["pictures"].tolist())}
    pairs = [(row, place[int(picture)]) for row, picture in enumerate(seen) if int(picture) in place]
    if not pairs:
        return torch.zeros(())
    rows, indices = (list(column) for column in zip(*pairs, strict=True))
    total = torch.zeros(())
    for name, pair in factors.items():
        left, right = references[f"{name}/left"][indices], references[f"{name}/right"][indices]
        change = pair.left[rows].float() @ pair.right[rows].float()
        total = total + (change - (left @ right).to(change)).square().sum(dim=(1, 2)).mean()
    return total
