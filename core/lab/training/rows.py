"""Rows of a training batch: which picture, in which style, with which caption, seen through whose hypernetwork
input.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import to_pixels
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.training.captions import caption
from core.lab.training.data import Faces, LatentCache


@dataclass(frozen=True)
class Mix:
    """The shares of a batch: plain photos (the rest is stylised), empty captions, personal rows, other photos."""

    photo: float
    empty: float
    personal: float
    other_photo: float


@dataclass(frozen=True)
class Rows:
    """One batch. ``personal`` rows come first; ``faces`` are what the hypernetwork sees for them."""

    latents: Float[Tensor, "n c h w"]
    tokens: Int[Tensor, "n tokens"]
    faces: Float[Tensor, "personal 3 height width"]
    labels: Int[Tensor, " personal"]
    seen: Int[Tensor, " personal"]


class RowSource:
    """Draws batches from faces and their cached latents; everything random comes from the step's generator.

    ``balanced`` of the rows show a picture drawn by what is to be seen on it: an attribute, each as likely, then a
    picture that has it. Left to chance, one face of a hundred wears a hat, and the word is not learnt.
    """

    def __init__(self, bundle: Bundle, faces: Faces, latents: LatentCache, mix: Mix, *, balanced: float = 0.0) -> None:
        self.bundle, self.faces, self.latents, self.mix = bundle, faces, latents, mix
        self.balanced = balanced if faces.by_attribute else 0.0

    def draw(self, rows: int, generator: torch.Generator) -> Rows:
        """A batch of ``rows``; the first ``mix.personal`` of them show the person the hypernetwork sees."""
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        personal = round(rows * self.mix.personal)
        pictures = [self._picture(rng) for _ in range(rows)]
        drawn = [self._row(picture, rng, index < personal) for index, picture in enumerate(pictures)]
        seen = [self._seen(picture, rng) for picture in pictures[:personal]]
        mirrored = [flip for _, _, flip in drawn[:personal]]
        device = self.bundle.device
        return Rows(
            torch.stack([latent for latent, _, _ in drawn]).to(device, torch.float32),
            tokenize(self.bundle, [text for _, text, _ in drawn]),
            to_pixels(self._pictures(seen, mirrored)).to(device),
            torch.from_numpy(self.faces.labels[seen]).to(device) if seen else torch.empty(0, dtype=torch.int64),
            torch.tensor(seen, dtype=torch.int64),
        )

    def _picture(self, rng: Random) -> int:
        if self.balanced and rng.random() < self.balanced:
            return rng.choice(self.faces.by_attribute[rng.choice(list(self.faces.by_attribute))])
        return rng.randrange(len(self.faces))

    def _row(self, picture: int, rng: Random, personal: bool) -> tuple[Tensor, str, bool]:
        """Latents, caption, and whether the picture is mirrored: then the hypernetwork sees a mirrored one as well."""
        empty = rng.random() < self.mix.empty
        if rng.random() < self.mix.photo:
            flip = rng.random() < 0.5
            latent, style = self.latents.plain[picture, int(flip)], PHOTO
        else:
            k = rng.randrange(self.latents.styled.shape[1])
            flip = bool(self.latents.mirrored[picture, k])
            latent, style = self.latents.styled[picture, k], STYLES[self.latents.names[self.latents.styles[picture, k]]]
        identifier = self.bundle.identifier if personal else None
        words = self.faces.attributes[picture]
        text = "" if empty else caption(words, style, rng, identifier=identifier, class_noun=self.bundle.class_noun)
        return latent, text, flip

    def _seen(self, picture: int, rng: Random) -> int:
        if rng.random() >= self.mix.other_photo:
            return picture
        return rng.choice(self.faces.by_identity[self.faces.identities[picture]])

    def _pictures(self, seen: list[int], mirrored: list[bool]) -> UInt8[Tensor, "n h w 3"]:
        pictures = [self.faces.pictures[i][:, :: -1 if flip else 1] for i, flip in zip(seen, mirrored, strict=True)]
        side = self.faces.pictures.shape[1]
        return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty(0, side, side, 3, dtype=torch.uint8)
