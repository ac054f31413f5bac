"""Whether a base model without a subject follows words: how often each is visible when asked for, and when not.

The same seeds draw both, so that what differs is the word. The classifier that checks has learnt from photos alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

Pictures = UInt8[np.ndarray, "n h w 3"]
Draw = Callable[[Sequence[str], Sequence[int]], Pictures]
"""Prompts and seeds to pictures, one each."""
Shows = Callable[[Pictures, str], Bool[np.ndarray, " n"]]
"""Which pictures show what a word says."""


@dataclass(frozen=True)
class Ask:
    """A prompt that asks for something, and the prompt without it."""

    asked: str
    unasked: str = "a face"


ASKS: Mapping[str, Ask] = {
    "hat": Ask("a face with a hat"),
    "glasses": Ask("a face with glasses"),
    "beard": Ask("a face with a beard"),
    "smiling": Ask("a smiling face"),
    "blond hair": Ask("a face with blond hair"),
    "black hair": Ask("a face with black hair"),
    "gray hair": Ask("a face with gray hair"),
    "bald": Ask("a bald man", "a man"),
    "bangs": Ask("a face with bangs"),
    "lipstick": Ask("a face with lipstick"),
    "mouth wide open": Ask("a face, mouth wide open"),
    "looking left": Ask("a face, looking left"),
    "looking right": Ask("a face, looking right"),
    "old": Ask("an old face"),
    "young": Ask("a young face"),
    "on a black background": Ask("a face, on a black background"),
    "on a blue background": Ask("a face, on a blue background"),
    "on a green background": Ask("a face, on a green background"),
}
"""Words whose effect is measured, by the names that captions have for them."""


@dataclass(frozen=True)
class Followed:
    """The shares of pictures that show a word when it is asked for and when it is not."""

    asked: float
    unasked: float

    @property
    def effect(self) -> float:
        """What asking does: 1 is always and only then."""
        return self.asked - self.unasked


def followed(draw: Draw, shows: Shows, asks: Mapping[str, Ask], seeds: Sequence[int]) -> dict[str, Followed]:
    """Each word's shares over the seeds; a prompt that several words share is drawn once."""
    drawn: dict[str, Pictures] = {}

    def share(prompt: str, word: str) -> float:
        if prompt not in drawn:
            drawn[prompt] = draw([prompt] * len(seeds), seeds)
        return float(np.mean(shows(drawn[prompt], word)))

    return {word: Followed(share(ask.asked, word), share(ask.unasked, word)) for word, ask in asks.items()}


def mean_effect(found: Mapping[str, Followed]) -> float:
    """Asked minus unasked, over all words."""
    return float(np.mean([each.effect for each in found.values()]))
