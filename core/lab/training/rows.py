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
from core.lab.training.words import mirrored

EVENNESS = 0.3
"""A word that so many pictures have is as likely as their number to this power: 1 is by chance, 0 is all alike."""


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

    ``balanced`` of the rows show a picture drawn by what is to be seen on it: a word, rare ones nearly as likely as
    frequent ones, then a picture that has it, and its caption says it. Left to chance, one face of a hundred wears a
    hat, and the word is not learnt.
    """

    def __init__(self, bundle: Bundle, faces: Faces, latents: LatentCache, mix: Mix, *, balanced: float = 0.0) -> None:
        self.bundle, self.faces, self.latents, self.mix = bundle, faces, latents, mix
        self.balanced = balanced if faces.by_attribute else 0.0
        self._words = list(faces.by_attribute)
        self._likely = [len(pictures) ** EVENNESS for pictures in faces.by_attribute.values()]

    def draw(self, rows: int, generator: torch.Generator) -> Rows:
        """A batch of ``rows``; the first ``mix.personal`` of them show the person the hypernetwork sees."""
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        personal = round(rows * self.mix.personal)
        pictures, asked = zip(*(self._picture(rng) for _ in range(rows)), strict=True)
        drawn = [self._row(pictures[row], asked[row], rng, row < personal) for row in range(rows)]
        seen = [self._seen(picture, rng) for picture in pictures[:personal]]
        flipped = [flip for _, _, flip in drawn[:personal]]
        device = self.bundle.device
        return Rows(
            torch.stack([latent for latent, _, _ in drawn]).to(device, torch.float32),
            tokenize(self.bundle, [text for _, text, _ in drawn]),
            to_pixels(self._pictures(seen, flipped)).to(device),
            torch.from_numpy(self.faces.labels[seen]).to(device) if seen else torch.empty(0, dtype=torch.int64),
            torch.tensor(seen, dtype=torch.int64),
        )

    def _picture(self, rng: Random) -> tuple[int, str | None]:
        """A picture, and the word it was drawn for."""
        if self.balanced and rng.random() < self.balanced:
            word = rng.choices(self._words, self._likely)[0]
            return rng.choice(self.faces.by_attribute[word]), word
        return rng.randrange(len(self.faces)), None

    def _row(self, picture: int, asked: str | None, rng: Random, personal: bool) -> tuple[Tensor, str, bool]:
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
        if flip:
            words, asked = mirrored(words), None if asked is None else mirrored([asked])[0]
        noun = self.bundle.class_noun
        text = caption(words, style, rng, identifier=identifier, class_noun=noun, asked=asked)
        return latent, "" if empty else text, flip

    def _seen(self, picture: int, rng: Random) -> int:
        if rng.random() >= self.mix.other_photo:
            return picture
        return rng.choice(self.faces.by_identity[self.faces.identities[picture]])

    def _pictures(self, seen: list[int], flipped: list[bool]) -> UInt8[Tensor, "n h w 3"]:
        pictures = [self.faces.pictures[i][:, :: -1 if flip else 1] for i, flip in zip(seen, flipped, strict=True)]
        side = self.faces.pictures.shape[1]
        return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty(0, side, side, 3, dtype=torch.uint8)
