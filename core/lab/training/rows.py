"""Rows of a training batch: which picture, in which style, with which caption, seen through whose hypernetwork
input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from core.hyperdreambooth.faces.photo_words import mirrored
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import to_pixels
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.training.captions import caption
from core.lab.training.data import Faces, LatentCache

EVENNESS = 0.3
"""A word that so many pictures have is as likely as their number to this power: 1 is by chance, 0 is all alike."""


APART = 0.029
"""Standard deviation of each of dlib's numbers over photos of one person (0.465 / sqrt(2 x 128))."""


@dataclass(frozen=True)
class Mix:
    """The shares of a batch: plain photos (the rest is stylised), empty captions, personal rows, other photos.

    ``blur`` is noise on embeddings, as a share of ``APART``.
    """

    photo: float
    empty: float
    personal: float
    other_photo: float
    blur: float = 0.0


@dataclass(frozen=True)
class Rows:
    """One batch. ``personal`` rows come first; ``faces`` are what the hypernetwork sees for them, ``plain`` those that
    show a photo as it is.
    """

    latents: Float[Tensor, "n c h w"]
    tokens: Int[Tensor, "n tokens"]
    faces: Float[Tensor, "personal ..."]
    labels: Int[Tensor, " personal"]
    seen: Int[Tensor, " personal"]
    plain: Bool[Tensor, " personal"]


@dataclass(frozen=True)
class _Row:
    latents: Tensor
    caption: str
    mirrored: bool
    plain: bool


class RowSource:
    """Draws batches from faces and their cached latents; everything random comes from the step's generator.

    ``balanced`` of the rows show a picture drawn by what is to be seen on it: a word, rare ones nearly as likely as
    frequent ones, then a picture that has it, and its caption says it. Left to chance, one face of a hundred wears a
    hat, and the word is not learnt.
    """

    def __init__(
        self,
        bundle: Bundle,
        faces: Faces,
        latents: LatentCache,
        mix: Mix,
        *,
        balanced: float = 0.0,
        emphasis: Mapping[str, float] | None = None,
        embeddings: Float[np.ndarray, "pictures 2 numbers"] | None = None,
    ) -> None:
        self.bundle, self.faces, self.latents, self.mix = bundle, faces, latents, mix
        self.embeddings = None if embeddings is None else torch.from_numpy(embeddings)
        self.balanced = balanced if faces.by_attribute else 0.0
        self._words = list(faces.by_attribute)
        weights = emphasis or {}
        self._likely = [weights.get(word, 1.0) * len(found) ** EVENNESS for word, found in faces.by_attribute.items()]

    def draw(self, rows: int, generator: torch.Generator) -> Rows:
        """A batch of ``rows``; the first ``mix.personal`` of them show the person the hypernetwork sees."""
        rng = Random(int(torch.randint(2**62, (1,), generator=generator)))
        personal = round(rows * self.mix.personal)
        pictures, asked = zip(*(self._picture(rng) for _ in range(rows)), strict=True)
        drawn = [self._row(pictures[row], asked[row], rng, row < personal) for row in range(rows)]
        seen = [self._seen(picture, rng) for picture in pictures[:personal]]
        flipped = [row.mirrored for row in drawn[:personal]]
        device = self.bundle.device
        return Rows(
            torch.stack([row.latents for row in drawn]).to(device, torch.float32),
            tokenize(self.bundle, [row.caption for row in drawn]),
            self._faces(seen, flipped, pictures[:personal], generator).to(device),
            torch.from_numpy(self.faces.labels[seen]).to(device) if seen else torch.empty(0, dtype=torch.int64),
            torch.tensor(seen, dtype=torch.int64),
            torch.tensor([row.plain for row in drawn[:personal]], dtype=torch.bool),
        )

    def _picture(self, rng: Random) -> tuple[int, str | None]:
        """A picture, and the word it was drawn for."""
        if self.balanced and rng.random() < self.balanced:
            word = rng.choices(self._words, self._likely)[0]
            return rng.choice(self.faces.by_attribute[word]), word
        return rng.randrange(len(self.faces)), None

    def _row(self, picture: int, asked: str | None, rng: Random, personal: bool) -> _Row:
        """Where it is mirrored, the hypernetwork sees a mirrored picture as well."""
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
        return _Row(latent, "" if empty else text, flip, style is PHOTO)

    def _seen(self, picture: int, rng: Random) -> int:
        if rng.random() >= self.mix.other_photo:
            return picture
        others = [other for other in self.faces.by_identity[self.faces.identities[picture]] if other != picture]
        return rng.choice(others or [picture])

    def _faces(self, seen: list[int], flipped: list[bool], drawn: Sequence[int], generator: torch.Generator) -> Tensor:
        """What the hypernetwork sees: pictures in [-1, 1], or embeddings where it sees those.

        Those of the very picture that is ``drawn`` are blurred twice as much, so that they do not tell its glasses.
        """
        if self.embeddings is None:
            return to_pixels(self._pictures(seen, flipped))
        known = self.embeddings[seen, [int(flip) for flip in flipped]]
        itself = torch.tensor([2.0 if a == b else 1.0 for a, b in zip(seen, drawn, strict=True)])
        return known + self.mix.blur * APART * itself[:, None] * torch.randn(known.shape, generator=generator)

    def _pictures(self, seen: list[int], flipped: list[bool]) -> UInt8[Tensor, "n h w 3"]:
        pictures = [self.faces.pictures[i][:, :: -1 if flip else 1] for i, flip in zip(seen, flipped, strict=True)]
        side = self.faces.pictures.shape[1]
        return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty(0, side, side, 3, dtype=torch.uint8)
