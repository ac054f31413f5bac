"""Captions from attribute words."""

import re
from random import Random

import numpy as np

from core.hyperdreambooth.styles.styles import PHOTO, STYLES, Style
from core.lab.training.captions import ADJECTIVES, CLAUSES, NOUNS, WITH, caption, vocabulary
from core.lab.training.captions import HAIR as KINDS_OF_HAIR

MAN = ("man", "smiling", "wavy hair", "black hair", "glasses", "beard")
HAIR = tuple(f"{kind} hair" for kind in ("wavy", "black", "straight", "brown", "blond", "gray", "long"))
THINGS = ("earrings", "bangs", "beard", "glasses", "goatee", "mustache", "hat")
ATTRIBUTES = ("woman", "man", "smiling", "bald", *HAIR, *THINGS)
SKETCH = STYLES["pencil sketch"]


def many(attributes: tuple[str, ...], style: Style = PHOTO, count: int = 400, **options: str | float) -> list[str]:
    rng = Random(7)
    return [caption(attributes, style, rng, **options) for _ in range(count)]  # type: ignore[arg-type]


def test_the_same_generator_state_gives_the_same_caption() -> None:
    assert caption(MAN, SKETCH, Random(3)) == caption(MAN, SKETCH, Random(3))
    assert len(set(many(MAN))) > 100


def test_numpy_generators_will_do() -> None:
    assert caption(MAN, SKETCH, np.random.default_rng(0)) == caption(MAN, SKETCH, np.random.default_rng(0))


def test_every_phrasing_of_a_style_is_used_and_no_other() -> None:
    patterns = {p: re.compile(re.escape(p).replace(re.escape("{subject}"), "(.+)")) for p in SKETCH.phrasings}
    captions = many(MAN, SKETCH)
    assert all(any(pattern.fullmatch(text) for pattern in patterns.values()) for text in captions)
    assert all(any(pattern.fullmatch(text) for text in captions) for pattern in patterns.values())


def test_subject_forms() -> None:
    described = {"a face", "a man", "a smiling man", "a man with glasses", "a man wearing glasses", "a man, smiling"}
    assert described <= set(many(("man", "smiling", "glasses"), count=2000))


def test_things_are_listed_and_hair_is_one_thing() -> None:
    said = " ".join(many(("man", "glasses", "black hair", "beard", "wavy hair"), count=1000))
    assert "wavy black hair" in said
    assert "hair and wavy" not in said
    assert re.search(r"a man with (eye)?glasses and a beard\b", said)
    assert re.search(r"a man with \w[\w ]+, \w[\w ]+ and \w", said)


def test_what_is_seen_follows_in_many_phrasings() -> None:
    captions = many(("woman", "looking left", "on an orange background", "mouth wide open"), count=1000)
    for said in ("looking to the left", "facing left", "orange background", "in front of an orange wall"):
        assert any(said in text for text in captions), said
    assert {"a woman, looking left", "a woman, mouth wide open", "a woman with a wide open mouth"} <= set(captions)


def test_without_words_it_is_a_face_or_a_person() -> None:
    subjects = {style.format(subject=noun) for style in PHOTO.phrasings for noun in ("a face", "a person")}
    assert set(many(())) <= subjects | {style.format(subject="the face of a person") for style in PHOTO.phrasings}


def test_a_word_that_was_asked_for_is_said() -> None:
    words = ("man", "hat", "smiling", "beard", "young", "facing the camera", "black hair", "necktie", "stubble")
    said = [("hat" in text) for text in many(words, asked="hat")]
    chance = [("hat" in text) for text in many(words)]
    assert sum(said) > 0.85 * len(said) > sum(chance) * 1.3


def test_a_word_that_the_style_paints_over_is_not_said() -> None:
    assert not [text for text in many(("man", "on a blue background"), STYLES["neon sign"]) if "blue" in text]


def test_words_of_pictures_stand_for_no_style() -> None:
    """Otherwise "old" makes a sepia photograph."""
    photos = {word for phrasing in PHOTO.phrasings for word in phrasing.split()}
    said = {word for phrases in (*WITH.values(), *CLAUSES.values()) for phrase in phrases for word in phrase.split()}
    said |= {word for phrase in (*NOUNS, *ADJECTIVES, *KINDS_OF_HAIR) for word in phrase.split()}
    of_styles = {
        word for style in STYLES.values() for phrasing in style.phrasings for word in re.findall("[a-z]+", phrasing)
    }
    allowed = {"a", "an", "in", "of", "on", "the", "subject"}
    both = (said & of_styles) - photos - allowed
    assert both == {"and", "black", "white"}  # which are a photo as well


def test_articles_fit() -> None:
    assert "a photo of an elf" in many((), class_noun="elf")
    assert not [text for text in many(("woman", "earrings"), STYLES["oil painting"]) if re.search(r"\ba [aeiou]", text)]


def test_only_given_attributes_are_said() -> None:
    said = " ".join(many(("woman", "earrings", "blond hair")))
    assert not re.search(r"\b(man|glasses|beard|bald|smiling|brown|wavy)\b", said)
    assert re.search(r"\bwoman with (blond hair and earrings|earrings and blond hair)\b", said)


def test_an_unknown_attribute_is_said_as_it_stands() -> None:
    assert "a woman with freckles" in many(("woman", "freckles"))


def test_the_identifier_is_the_subject() -> None:
    captions = many(MAN, identifier="sks")
    assert all("a sks face" in text for text in captions)
    assert "a sks face" in captions
    assert any(text.startswith("a sks face, with ") for text in captions)
    assert any(text.startswith("a sks face, smiling") for text in captions)
    assert not [text for text in captions if re.search(r"\bman\b", text)]


def test_another_class_noun() -> None:
    captions = many(("woman",), class_noun="person", identifier="sks")
    assert all("a sks person" in text for text in captions)


def test_empty_captions() -> None:
    assert set(many(MAN, empty_probability=1.0)) == {""}
    assert "" not in many(MAN)
    share = many(MAN, count=1000, empty_probability=0.1).count("") / 1000
    assert 0.06 < share < 0.14


def test_the_vocabulary_is_sorted_and_holds_all_that_is_said() -> None:
    words = vocabulary()
    assert words == sorted(set(words))
    assert all(word == word.lower() and word.isalpha() for word in words)
    assert {part for phrase in (*WITH, *CLAUSES) for part in phrase.split()} <= set(words)
    for style in (PHOTO, *STYLES.values()):
        for text in many(ATTRIBUTES, style, count=15):
            assert set(text.replace(",", "").split()) <= set(words)


def test_the_vocabulary_holds_what_users_try() -> None:
    words = vocabulary()
    assert {"a", "the", "of", "and", "person", "girl", "boy", "portrait", "photo", "red", "snow"} <= set(words)
    assert len(words) < 1000
