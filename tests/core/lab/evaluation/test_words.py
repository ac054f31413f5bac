"""How often a word shows when it is asked for, and when it is not."""

import numpy as np
import pytest

from core.lab.evaluation.words import ASKS, Ask, Followed, followed, mean_effect
from core.lab.training.captions import CLAUSES, WITH
from core.lab.training.words import words_of

SEEDS = range(10)


def test_the_same_seeds_draw_both_and_each_prompt_once():
    calls = []

    def draw(prompts, seeds):
        calls.append((prompts[0], tuple(seeds)))
        return np.full((len(prompts), 2, 2, 3), 255 if "hat" in prompts[0] else 0, np.uint8)

    found = followed(
        draw,
        lambda pictures, word: pictures.mean((1, 2, 3)) > 0,
        {"hat": Ask("a hat"), "old": Ask("an old face")},
        SEEDS,
    )
    assert found == {"hat": Followed(1.0, 0.0), "old": Followed(0.0, 0.0)}
    assert mean_effect(found) == pytest.approx(0.5)
    assert calls == [(prompt, tuple(SEEDS)) for prompt in ("a hat", "a face", "an old face")]


def test_what_is_asked_for_is_what_captions_say():
    known = {*WITH, *CLAUSES, *words_of({"attributes": ["blond hair", "black hair", "gray hair", "bald"]})}
    assert set(ASKS) <= known
    assert all(ask.asked != ask.unasked for ask in ASKS.values())
