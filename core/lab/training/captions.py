"""Captions for training pictures, made from words for what is to be seen and the style a picture was given.

A base model that is to follow free prompts must not see one fixed sentence for each word, so a caption is composed at
random: a phrasing of the style, some of the words in some order, each in one of several phrasings, and one of several
ways to name the subject. Left-out words teach the model that what is not said may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

import numpy as np

from core.hyperdreambooth.styles.styles import PHOTO, STYLES, Style
from core.lab.training.words import visible_in

T = TypeVar("T")
Chance = Random | np.random.Generator
"""Either kind of generator will do: only its `random()`, uniform in [0, 1), is used."""

NOUNS = ("woman", "man")
"""Words that name the person."""

ADJECTIVES = ("smiling", "bald", "young", "old", "serious")
"""Words that stand before the noun."""

HAIR = ("long", "straight", "wavy", "black", "blond", "brown", "gray")
"""First words of "<word> hair", in the order in which they are combined: "long wavy brown hair"."""

COLOURS = (
    "beige", "black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow",
)  # fmt: skip
"""Of backgrounds."""

WITH: Mapping[str, tuple[str, ...]] = {
    "bangs": ("bangs",),
    "beard": ("a beard",),
    "bushy eyebrows": ("bushy eyebrows",),
    "earrings": ("earrings",),
    "glasses": ("glasses", "eyeglasses"),
    "goatee": ("a goatee",),
    "hat": ("a hat",),
    "heavy makeup": ("heavy makeup", "makeup"),
    "lipstick": ("lipstick",),
    "mouth closed": ("a closed mouth", "the mouth closed", "closed lips"),
    "mouth open": ("an open mouth", "the mouth open"),
    "mouth wide open": ("a wide open mouth", "the mouth wide open"),
    "mustache": ("a mustache",),
    "necklace": ("a necklace",),
    "necktie": ("a necktie", "a tie"),
    "pale skin": ("pale skin",),
    "receding hairline": ("a receding hairline",),
    "rosy cheeks": ("rosy cheeks",),
    "sideburns": ("sideburns",),
    "stubble": ("stubble",),
    "sunglasses": ("sunglasses",),
}
"""What is said after "with", and how."""

WORN = frozenset({"earrings", "glasses", "hat", "lipstick", "necklace", "necktie", "sunglasses"})
"""Those of them that are also worn."""

CLAUSES: Mapping[str, tuple[str, ...]] = {
    "black and white": ("black and white",),
    "bright": ("bright", "bright light"),
    "dark": ("dark", "in the dark", "dark light"),
    "facing the camera": ("facing the camera", "looking straight ahead", "front view", "looking at the camera"),
    "lit from the left": ("lit from the left", "light from the left"),
    "lit from the right": ("lit from the right", "light from the right"),
    "looking down": ("looking down", "head down"),
    "looking left": ("looking left", "looking to the left", "facing left", "turned to the left"),
    "looking right": ("looking right", "looking to the right", "facing right", "turned to the right"),
    "looking slightly left": ("looking slightly left", "turned slightly to the left"),
    "looking slightly right": ("looking slightly right", "turned slightly to the right"),
    "looking up": ("looking up", "head up"),
    "mouth closed": ("mouth closed",),
    "mouth open": ("mouth open", "open mouth"),
    "mouth wide open": ("mouth wide open",),
    "old": ("old", "elderly"),
    "serious": ("serious", "not smiling", "neutral expression", "neutral"),
    "smiling": ("smiling", "with a smile", "a smile"),
    "turned to the side": ("turned to the side", "side view", "in profile"),
    "young": ("young",),
} | {
    f"on {'an' if colour[0] == 'o' else 'a'} {colour} background": (
        f"on a{'n' if colour[0] == 'o' else ''} {colour} background",
        f"{colour} background",
        f"in front of a{'n' if colour[0] == 'o' else ''} {colour} wall",
    )
    for colour in COLOURS
}
"""What follows the subject, between commas, and how."""

_CANONICAL = 0.3
_PLAIN = 0.08
_KEPT = (0.25, 0.5, 0.75, 0.95)
_AS_NOUN = 0.75
_IDENTIFIER_ALONE = 0.15
_MOST = 7

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
    words: Sequence[str],
    style: Style,
    rng: Chance,
    *,
    identifier: str | None = None,
    class_noun: str = "face",
    asked: str | None = None,
    empty_probability: float = 0.0,
) -> str:
    """A caption for a picture in `style` of a person with these words ("man", "smiling", "looking left", ...).

    Words that the style paints over are not said; `asked`, if it is one of the others, is hardly ever left out. With an
    identifier the subject is "a <identifier> <class noun>". A word this module has no grammar for is said as it stands
    after "with". With probability `empty_probability` the caption is "" (which classifier-free guidance needs). The
    same state of `rng` gives the same caption.
    """
    if rng.random() < empty_probability:
        return ""
    phrasing = style.phrasings[0] if rng.random() < _CANONICAL else _pick(style.phrasings, rng)
    kept = _kept(visible_in(words, style), asked, rng)
    if identifier is not None:
        return phrasing.format(subject=_identified(f"a {identifier} {class_noun}", kept, rng))
    return phrasing.format(subject=_described(kept, class_noun, rng))


def vocabulary() -> list[str]:
    """All words a caption can contain, and those that users are likely to try in a prompt; sorted, lower case."""
    phrases = [phrasing for style in (PHOTO, *STYLES.values()) for phrasing in style.phrasings]
    phrases += [phrase for said in (*WITH.values(), *CLAUSES.values()) for phrase in said]
    words = " ".join(phrases).replace("{subject}", " ").replace(",", " ").lower().split()
    words += [*NOUNS, *ADJECTIVES, *HAIR, "hair", *_COMMON_WORDS.split()]
    return sorted(set(words))


def _kept(words: Sequence[str], asked: str | None, rng: Chance) -> list[str]:
    """Some of the words in some order: one caption says nearly all of them, another one hardly any."""
    if rng.random() < _PLAIN:
        return [] if asked is None or asked not in words or asked in NOUNS else [asked]
    share = _pick(_KEPT, rng)
    chosen = [word for word in words if rng.random() < (0.95 if word == asked else share)]
    order = sorted(chosen, key=lambda word: (word != asked, rng.random()))[:_MOST]
    return _shuffled(order, rng)


def _described(kept: Sequence[str], class_noun: str, rng: Chance) -> str:
    """ "a face", "the face of a smiling woman with glasses", "a young man with wavy black hair, looking left"."""
    named = [word for word in kept if word in NOUNS and rng.random() < _AS_NOUN]
    noun = named[0] if named else class_noun if rng.random() < 0.7 else "person"
    before = [word for word in kept if word in ADJECTIVES and rng.random() < 0.7]
    phrase = _with_article(" ".join([*before, noun]))
    if noun != "face" and class_noun == "face" and rng.random() < 0.15:
        phrase = f"the face of {phrase}"
    return _composed(phrase, [word for word in kept if word not in before and word not in NOUNS], rng, joined=" ")


def _identified(subject: str, kept: Sequence[str], rng: Chance) -> str:
    """ "a sks face", "a sks face, smiling, with glasses and a hat"; the identifier says who, so no "man" or "woman"."""
    if not kept or rng.random() < _IDENTIFIER_ALONE:
        return subject
    return _composed(subject, [word for word in kept if word not in NOUNS], rng, joined=", ")


def _composed(subject: str, kept: Sequence[str], rng: Chance, *, joined: str) -> str:
    """The subject, what it is with or wears, and what else is to be seen; ``joined`` stands before "with"."""
    worn = [word for word in kept if word in WORN and rng.random() < 0.35]
    clauses = [word for word in kept if word in CLAUSES and (word not in WITH or rng.random() < 0.5)]
    things = _things([word for word in kept if word not in worn and word not in clauses], rng)
    parts = [f"with {_listed(things)}"] if things else []
    parts += [f"wearing {_listed([_pick(WITH[word], rng) for word in worn])}"] if worn else []
    said = [_pick(CLAUSES[word], rng) for word in clauses]
    if parts and rng.random() < 0.75:
        return ", ".join([joined.join([subject, parts[0]]), *_shuffled([*parts[1:], *said], rng)])
    return ", ".join([subject, *_shuffled([*parts, *said], rng)])


def _things(kept: Sequence[str], rng: Chance) -> list[str]:
    """What comes after "with", in the order of `kept`; all hair in one phrase, where its first word stood."""
    hair = {word.removesuffix(" hair") for word in kept if _is_hair(word)}
    phrases: list[str] = []
    for word in kept:
        if _is_hair(word):
            phrase = " ".join([*(kind for kind in HAIR if kind in hair), "hair"])
        else:
            phrase = _pick(WITH.get(word, (word,)), rng)
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


def _pick(choices: Sequence[T], rng: Chance) -> T:
    return choices[int(rng.random() * len(choices))]


def _shuffled(words: Sequence[str], rng: Chance) -> list[str]:
    return [word for _, word in sorted((rng.random(), word) for word in words)]
