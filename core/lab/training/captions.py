"""Captions for training pictures, made from attribute words and the style a picture was given.

A base model that is to follow free prompts must not see one fixed sentence for each attribute, so a caption is
composed at random: a phrasing of the style, some of the attributes in some order, and one of several ways to name the
subject.
"""

from collections.abc import Sequence
from random import Random

import numpy as np

from core.hyperdreambooth.styles.styles import PHOTO, STYLES, Style

Chance = Random | np.random.Generator
"""Either kind of generator will do: only its `random()`, uniform in [0, 1), is used."""

NOUNS = ("woman", "man")
"""Attributes that name the person."""

ADJECTIVES = ("smiling", "bald")
"""Attributes that stand before the noun."""

HAIR = ("long", "straight", "wavy", "black", "blond", "brown", "gray")
"""First words of the attributes "<word> hair", in the order in which they are combined: "long wavy brown hair"."""

THINGS = {
    "bangs": "bangs",
    "beard": "a beard",
    "earrings": "earrings",
    "glasses": "glasses",
    "goatee": "a goatee",
    "hat": "a hat",
    "mustache": "a mustache",
}
"""Attributes said with "with", and how."""

_KEPT = 0.7
_CANONICAL = 0.3
_PLAIN = 0.15
_IDENTIFIER_ALONE = 0.6

_COMMON_WORDS = """
a an the of in on at with without and or as by for from to into over under behind near his her their its is are
wearing looking face faces head person people woman women man men girl boy lady guy human someone portrait portraits
picture image photo photograph photography drawing painting sketch art artwork illustration print poster style close
up closeup view front side profile headshot selfie black white gray grey red green blue yellow orange purple pink
brown gold golden silver blond blonde dark light bright pale warm cold colorful color colors colour hair eyes eye nose
mouth lips ears skin beard mustache goatee glasses sunglasses hat cap helmet crown scarf earrings necklace shirt suit
tie dress jacket bangs ponytail curly long short wavy straight bald smiling smile laughing serious sad happy angry
surprised young old older middle aged beautiful handsome funny cute background sky sun sunset night day snow rain
forest city beach room street studio window wall garden sea mountain flowers dog cat robot king queen knight wizard
superhero astronaut zombie vampire elf pirate clown statue sculpture bust bronze marble stone wood wooden metal glass
paper clay ice fire plastic lego toy doll cartoon anime comic manga pixel vintage retro modern ancient renaissance
baroque impressionist abstract realistic detailed blurry noisy quality best low high good bad sharp soft very made
like one two many no not this that
"""


def caption(
    attributes: Sequence[str],
    style: Style,
    rng: Chance,
    *,
    identifier: str | None = None,
    class_noun: str = "face",
    empty_probability: float = 0.0,
) -> str:
    """A caption for a picture in `style` of a person with these attributes ("man", "smiling", "wavy hair", ...).

    With an identifier the subject is "a <identifier> <class noun>", sometimes followed by attributes. An attribute this
    module has no grammar for is said as it stands after "with". With probability `empty_probability` the caption is ""
    (which classifier-free guidance needs). The same state of `rng` gives the same caption.
    """
    if rng.random() < empty_probability:
        return ""
    phrasing = style.phrasings[0] if rng.random() < _CANONICAL else _pick(style.phrasings, rng)
    kept = _shuffled([word for word in attributes if rng.random() < _KEPT], rng)
    if identifier is not None:
        return phrasing.format(subject=_identified(f"a {identifier} {class_noun}", kept, rng))
    return phrasing.format(subject=_described(kept, class_noun, rng))


def vocabulary() -> list[str]:
    """All words a caption can contain, and those that users are likely to try in a prompt; sorted, lower case."""
    phrasings = " ".join(phrasing for style in (PHOTO, *STYLES.values()) for phrasing in style.phrasings)
    words = phrasings.replace("{subject}", " ").replace(",", " ").lower().split()
    words += [*NOUNS, *ADJECTIVES, *HAIR, *THINGS, "hair", *_COMMON_WORDS.split()]
    return sorted(set(words))


def _described(kept: Sequence[str], class_noun: str, rng: Chance) -> str:
    """ "a face", "the face of a smiling woman with glasses", "a man with wavy black hair and a beard"."""
    if rng.random() < _PLAIN:
        return _with_article(class_noun)
    named = [word for word in kept if word in NOUNS]
    noun = named[0] if named else class_noun
    before = [word for word in kept if word in ADJECTIVES]
    phrase = _with_article(" ".join([*before, noun]))
    if named and class_noun == "face" and rng.random() < 0.25:
        phrase = f"the face of {phrase}"
    things = _things(kept)
    return f"{phrase} with {_listed(things)}" if things else phrase


def _identified(subject: str, kept: Sequence[str], rng: Chance) -> str:
    """ "a sks face", "a sks face, smiling, with glasses and a hat"; the identifier says who, so no "man" or "woman"."""
    if rng.random() < _IDENTIFIER_ALONE:
        return subject
    parts = [subject, *(word for word in kept if word in ADJECTIVES)]
    things = _things(kept)
    if things:
        parts.append(f"with {_listed(things)}")
    return ", ".join(parts)


def _things(kept: Sequence[str]) -> list[str]:
    """What comes after "with", in the order of `kept`; all hair in one phrase, where its first word stood."""
    hair = {word.removesuffix(" hair") for word in kept if _is_hair(word)}
    phrases: list[str] = []
    for word in kept:
        if _is_hair(word):
            phrase = " ".join([*(kind for kind in HAIR if kind in hair), "hair"])
        elif word in NOUNS or word in ADJECTIVES:
            continue
        else:
            phrase = THINGS.get(word, word)
        if phrase not in phrases:
            phrases.append(phrase)
    return phrases


def _is_hair(word: str) -> bool:
    return word.endswith(" hair") and word.removesuffix(" hair") in HAIR


def _listed(phrases: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _pick(choices: Sequence[str], rng: Chance) -> str:
    return choices[int(rng.random() * len(choices))]


def _shuffled(words: Sequence[str], rng: Chance) -> list[str]:
    return [word for _, word in sorted((rng.random(), word) for word in words)]
