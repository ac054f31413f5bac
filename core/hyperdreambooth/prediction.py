"""What the hypernetwork makes of a face: weights, and an idea of who it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from core.errors import BundleError
from core.hyperdreambooth.model.bundle import Bundle, to_pixels
from core.hyperdreambooth.model.hypernetwork import HyperNetwork
from core.hyperdreambooth.model.lidb import Person


@torch.no_grad()
def predict_weights(
    bundle: Bundle, people: Sequence[UInt8[Tensor, "n h w 3"]], iterations: int | None = None
) -> Person:
    """The hypernetwork's factors, with a leading dimension of people; a person's photos are averaged in the features.

    Raises:
        BundleError: the bundle has no hypernetwork.
    """
    network = _network(bundle)
    features = [network.encoder(face_pixels(bundle, network, photos)).mean(0) for photos in people]
    return network.decode(torch.stack(features), iterations)


@torch.no_grad()
def identify(bundle: Bundle, pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n embedding"]:
    """Unit vectors by the hypernetwork's own encoder, for telling people apart.

    Raises:
        BundleError: the bundle has no hypernetwork.
    """
    network = _network(bundle)
    return network.identity(network.encoder(face_pixels(bundle, network, pictures))).cpu()


def resize(pictures: UInt8[Tensor, "n h w 3"], side: int) -> UInt8[Tensor, "n side side 3"]:
    """Square pictures of another size, antialiased."""
    if pictures.shape[1:3] == (side, side):
        return pictures
    pixels = pictures.permute(0, 3, 1, 2).float()
    scaled = nn.functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def face_pixels(bundle: Bundle, network: HyperNetwork, pictures: UInt8[Tensor, "n h w 3"]) -> Tensor:
    """Pictures as the hypernetwork takes them: [-1, 1], at its own resolution, on the bundle's device."""
    return to_pixels(resize(pictures, network.config.resolution)).to(bundle.device)


def _network(bundle: Bundle) -> HyperNetwork:
    if bundle.hypernetwork is None:
        raise BundleError(f"bundle {bundle.name!r} has no hypernetwork")
    return bundle.hypernetwork
