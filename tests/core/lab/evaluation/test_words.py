"""The words that are asked for, as captions say them."""

import pytest

from core.lab.evaluation.words import ASKS, PLAIN, POSES
from core.lab.training.captions import CLAUSES, WITH
from core.lab.training.words import words_of


def test_what_is_asked_for_is_what_captions_say():
    known = {*WITH, *CLAUSES, *words_of({"attributes": ["blond hair", "black hair", "gray hair", "bald"]})}
    assert set(ASKS) | set(POSES) <= known


@pytest.mark.parametrize("word", [*ASKS, *POSES])
def test_a_prompt_is_the_plain_one_with_the_word(word):
    ask = {**ASKS, **POSES}[word]
    assert ask.prompt("face", has_subject=True).startswith(PLAIN.prompt("face", has_subject=True))
    asked = ask.prompt("face", has_subject=False)
    assert "[V]" not in asked
    assert word in asked
    assert asked.startswith(("a ", "an "))
    assert " face" in asked
