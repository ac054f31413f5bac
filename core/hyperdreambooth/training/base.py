"""Stage two: the text-to-image base, trained beside the hypernetwork that will personalise it.

Some rows of every batch are ordinary (a caption, nobody's weights); the others carry what the hypernetwork predicts
from a photo, with the identifier in the caption. The base so learns to draw faces and styles, and to be personalised;
the gradient that the hypernetwork needs passes through the base anyway. ``personal = 0`` is the classical separate
training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.hyperdreambooth.diffusion import Bundle, denoising_loss
from core.hyperdreambooth.hypernetwork import HyperNetwork
from core.hyperdreambooth.lidb import Person
from core.hyperdreambooth.training.loop import Losses
from core.hyperdreambooth.training.rows import Rows, RowSource

MARGIN, SCALE = 0.2, 16.0
"""CosFace (arXiv 1801.09414): additive cosine margin and scale, lower than the paper's for a 64 px encoder."""


def base_losses(
    bundle: Bundle, network: HyperNetwork, source: RowSource, batch: int, identity: float, generator: torch.Generator
) -> Losses:
    """Diffusion loss over all rows; ``identity`` weighs a loss that teaches the encoder to tell people apart."""
    rows = source.draw(batch, generator)
    with torch.autocast(bundle.device.type, torch.bfloat16):
        person, who = predict_people(bundle, network, rows)
        each = denoising_loss(bundle, rows.latents, rows.tokens, person, generator=generator)
    personal = len(rows.faces)
    losses = {"loss": each.mean() + identity * who, "plain": each[personal:].mean(), "personal": each[:personal].mean()}
    return {**losses, "identity": who} if personal else {"loss": each.mean()}


def predict_people(bundle: Bundle, network: HyperNetwork, rows: Rows) -> tuple[Person, Tensor]:
    """The merged factors of the personal rows and the identity loss of the faces they came from."""
    if not len(rows.faces):
        return {}, torch.zeros(())
    features = network.encoder(rows.faces)
    return bundle.basis.merge(network.decode(features)), identity_loss(network, features, rows.labels)


def identity_loss(network: HyperNetwork, features: Tensor, labels: Tensor) -> Tensor:
    """CosFace over the identities with several pictures; zero where a batch has none of them (label -1)."""
    known = labels >= 0
    if network.identities is None or not known.any():
        return features.new_zeros(())
    embedding = network.identity(features)[known].float()
    cosines = embedding @ nn.functional.normalize(network.identities, dim=-1).T
    margins = MARGIN * nn.functional.one_hot(labels[known], cosines.shape[-1])
    return nn.functional.cross_entropy(SCALE * (cosines - margins), labels[known])
