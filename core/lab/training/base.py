"""The text-to-image base: the diffusion loss of captioned pictures, with nobody's weights."""

from __future__ import annotations

import torch

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import denoising_loss
from core.lab.training.loop import Losses
from core.lab.training.precision import autocast, quickest
from core.lab.training.rows import RowSource


def base_losses(bundle: Bundle, source: RowSource, batch: int, generator: torch.Generator) -> Losses:
    """The mean over a batch of rows."""
    rows = source.draw(batch, generator)
    with autocast(bundle.device, quickest(bundle.device)):
        return {"loss": denoising_loss(bundle, rows.latents, rows.tokens, generator=generator).mean()}
