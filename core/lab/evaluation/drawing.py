"""Pictures of a personalized subject, and what the autoencoder alone makes of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from core.hyperdreambooth.formats.lidb_weights import LidbWeights
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import decode_latents, encode_pictures
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import sample_latents, zeros
from core.lab.evaluation.methods import Personalized

Pictures = UInt8[np.ndarray, "_ h w 3"]


def draw(person: Personalized, texts: Sequence[str], seeds: Sequence[int]) -> Pictures:
    """One picture for each prompt, of the seed that stands at its place."""
    bundle = person.bundle
    factors = zeros(bundle) if person.factors is None else person.factors
    rows: list[Row[LidbWeights]] = [Row(text, seed=seed) for text, seed in zip(texts, seeds, strict=True)]
    limit, side, steps = bundle.config.sampling.batch, bundle.resolution, bundle.config.sampling.steps
    parts = []
    for first in range(0, len(rows), limit):
        part = rows[first : first + limit]
        latents = sample_latents(bundle, part, [factors] * len(part), steps=steps, size=(side, side))
        with torch.inference_mode():
            parts.append(decode_latents(bundle, latents).cpu())
    pictures: np.ndarray = torch.cat(parts).numpy()
    return pictures


@torch.inference_mode()
def through_autoencoder(bundle: Bundle, pictures: Pictures) -> Pictures:
    """The pictures as the bundle's autoencoder gives them back: the best copy that it can draw."""
    parts = torch.from_numpy(pictures).split(bundle.config.sampling.batch)
    again: np.ndarray = torch.cat(
        [decode_latents(bundle, encode_pictures(bundle, part)).cpu() for part in parts]
    ).numpy()
    return again
