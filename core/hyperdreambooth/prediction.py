"""The hypernetwork's predictions from faces: LiDB factors (section 4.2), and embeddings of identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.errors import BundleError
from core.hyperdreambooth.appearance import embeddings_of
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.hypernetwork import HyperNetwork
from core.hyperdreambooth.model.latents import resize, to_pixels
from core.hyperdreambooth.model.lidb import LayerFactors


@torch.no_grad()
def predict_weights(
    bundle: Bundle, people: Sequence[UInt8[Tensor, "n h w 3"]], iterations: int | None = None
) -> LayerFactors:
    """The hypernetwork's factors, with a leading dimension of people; the features of a person's photos are averaged.

    ``iterations``: the number of residuals (the paper's ``s``); None is the hypernetwork's own.

    Raises:
        BundleError: the bundle has no hypernetwork.
    """
    network = _network(bundle)
    features = [network.encoder(face_pixels(bundle, network, photos)).mean(0) for photos in people]
    return network.decode(torch.stack(features), iterations)


@torch.no_grad()
def identify(bundle: Bundle, pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n embedding"]:
    """Unit vectors by the hypernetwork's own encoder, which are alike for pictures of one person.

    Raises:
        BundleError: the bundle has no hypernetwork.
    """
    network = _network(bundle)
    return network.identity(network.encoder(face_pixels(bundle, network, pictures))).cpu()


def face_pixels(bundle: Bundle, network: HyperNetwork, pictures: UInt8[Tensor, "n h w 3"]) -> Tensor:
    """Pictures as the hypernetwork takes them: [-1, 1], at its own resolution, or as a recogniser's numbers."""
    if network.config.embedding:
        return embeddings_of(pictures).to(bundle.device)
    return to_pixels(resize(pictures, network.config.resolution)).to(bundle.device)


def _network(bundle: Bundle) -> HyperNetwork:
    if bundle.hypernetwork is None:
        raise BundleError(f"bundle {bundle.name!r} has no hypernetwork")
    return bundle.hypernetwork
