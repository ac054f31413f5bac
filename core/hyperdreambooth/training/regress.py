"""Stage four: the hypernetwork on the frozen base (section 4.2).

    L = diffusion(H(x), x) + beta |H(x) - w*|^2

``w*`` are the weights of stage three, where a picture has some. Rank-r factors have no unique form, so the second term
compares the changes themselves, ``A B`` in the basis, which is what the paper's rank 1 does up to a sign.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.hyperdreambooth.diffusion import Bundle, denoising_loss
from core.hyperdreambooth.hypernetwork import HyperNetwork
from core.hyperdreambooth.lidb import Person
from core.hyperdreambooth.training.base import identity_loss
from core.hyperdreambooth.training.loop import Losses
from core.hyperdreambooth.training.preoptimize import Targets
from core.hyperdreambooth.training.recipe import Hypernetwork
from core.hyperdreambooth.training.rows import Rows


def hypernetwork_losses(
    bundle: Bundle,
    network: HyperNetwork,
    rows: Rows,
    targets: Targets,
    config: Hypernetwork,
    generator: torch.Generator,
    *,
    autocast: torch.dtype | None = torch.bfloat16,
) -> Losses:
    """The loss above of some rows, with the auxiliary identity loss of the base stage; ``autocast`` None is float32."""
    with torch.autocast(bundle.device.type, autocast or torch.bfloat16, enabled=autocast is not None):
        features = network.encoder(rows.faces)
        person = network.decode(features)
        who = identity_loss(network, features, rows.labels)
        each = denoising_loss(
            bundle,
            rows.latents,
            rows.tokens,
            bundle.basis.merge(person),
            generator=generator,
            least_noise=config.least_noise,
            noisiest=config.noisiest,
        )
    distance = target_distance(person, targets, rows.seen)
    loss = each.mean() + config.beta * distance + config.identity * who
    return {"loss": loss, "diffusion": each.mean(), "distance": distance, "identity": who}


def target_distance(person: Person, targets: Targets, seen: Tensor) -> Tensor:
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
