"""The rows of the table: methods of personalizing, and trivial rows that know nothing and only copy.

A row makes, for each person, something that draws what is asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from core.errors import SettingsError
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.evaluation.drawing import Pictures, draw, through_autoencoder
from core.lab.evaluation.methods import METHODS, Method, Personalized
from core.lab.evaluation.subjects import Subject
from core.lab.evaluation.variations import varied
from core.lab.evaluation.words import ASKS, PLAIN, POSES


@dataclass(frozen=True)
class Plan:
    """What is drawn of each person: the plain prompt with so many seeds; each word and each style with the first."""

    pictures: int = 4
    words: tuple[str, ...] = tuple(dict.fromkeys([*ASKS, *POSES]))
    styles: tuple[str, ...] = ()

    def prompts(self, noun: str, *, has_subject: bool) -> list[str]:
        """Plain ones, words, styles."""
        plain = PLAIN.prompt(noun, has_subject=has_subject)
        asked = [({**ASKS, **POSES})[word].prompt(noun, has_subject=has_subject) for word in self.words]
        return (
            [plain] * self.pictures + asked + [STYLES[name].phrasings[0].format(subject=plain) for name in self.styles]
        )


@dataclass(frozen=True)
class Made:
    """The pictures of one person in one row; a row that has none of a kind says nothing about it.

    ``are_others``: the plain pictures are the first of the person's other photos.
    """

    plain: Pictures
    asked: Mapping[str, Pictures] = field(default_factory=dict)
    styled: Mapping[str, Pictures] = field(default_factory=dict)
    are_others: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)


Draw = Callable[[Plan, int], Made]
"""A plan and the first seed to pictures."""

Make = Callable[[Bundle, Sequence[Subject], int], list[Draw]]
"""A bundle, people and a seed to what draws each of them."""


@dataclass(frozen=True)
class Row:
    """A row: ``trivial`` ones know nothing of a person beyond photos. ``missing`` says why a bundle has it not."""

    name: str
    title: str
    make: Make
    trivial: bool = False
    batched: bool = True
    missing: Callable[[Bundle], str | None] = lambda _bundle: None


def find_rows(names: Sequence[str], variations: Sequence[str]) -> list[Row]:
    """Rows by name, then those of settings changed (``KEY=VALUE,VALUE``). Raises SettingsError for an unknown name."""
    if unknown := [name for name in names if name not in ROWS]:
        raise SettingsError(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    changed = [_of_method(method) for setting in variations for method in varied(setting)]
    return [ROWS[name] for name in names] + changed


def _copier(bundle: Bundle, chosen: Sequence[Subject], _seed: int) -> list[Draw]:
    """The photo through the autoencoder, whatever is asked."""
    again = through_autoencoder(bundle, np.stack([subject.photo for subject in chosen]))

    def copied(picture: Pictures, plan: Plan, _seed: int) -> Made:
        return Made(np.repeat(picture, plan.pictures, axis=0), dict.fromkeys(plan.words, picture))

    return [partial(copied, picture[None]) for picture in again]


def _filtered(_bundle: Bundle, chosen: Sequence[Subject], _seed: int) -> list[Draw]:
    """The photo through each style's filter."""

    def styled(subject: Subject, plan: Plan, _seed: int) -> Made:
        photo = subject.photo[None]
        return Made(photo[:0], styled={name: STYLES[name].apply(photo) for name in plan.styles})

    return [partial(styled, subject) for subject in chosen]


def _other_photos(_bundle: Bundle, chosen: Sequence[Subject], _seed: int) -> list[Draw]:
    """The person's other photos, which a person that is known is as different as."""

    def others(subject: Subject, plan: Plan, _seed: int) -> Made:
        return Made(subject.others[: plan.pictures], are_others=True)

    return [partial(others, subject) for subject in chosen]


def _personalized(method: Method, bundle: Bundle, chosen: Sequence[Subject], seed: int) -> list[Draw]:
    _ = bundle.basis, bundle.fingerprint  # computed once, and not part of the seconds of any person
    began = time.perf_counter()
    people = method.run(bundle, chosen, seed, None)
    seconds = (time.perf_counter() - began) / len(chosen)
    return [partial(_drawn, person, seconds, has_subject=method.identifier) for person in people]


def _drawn(person: Personalized, seconds: float, plan: Plan, seed: int, *, has_subject: bool) -> Made:
    """All prompts; words and styles have the first of the plain prompt's seeds."""
    prompts = plan.prompts(person.bundle.class_noun, has_subject=has_subject)
    seeds = [*range(seed, seed + plan.pictures), *[seed] * (len(prompts) - plan.pictures)]
    began = time.perf_counter()
    pictures = draw(person, prompts, seeds)
    each = (time.perf_counter() - began) / len(prompts)
    named = dict(zip([*plan.words, *plan.styles], pictures[plan.pictures :, None], strict=True))
    return Made(
        pictures[: plan.pictures],
        {word: named[word] for word in plan.words},
        {name: named[name] for name in plan.styles},
        costs={"seconds": seconds, "seconds_per_picture": each, "bytes": person.stored_bytes},
    )


def _of_method(method: Method, **changes: str) -> Row:
    row = Row(
        method.name,
        method.title,
        partial(_personalized, method),
        batched=method.batched,
        missing=method.missing,
    )
    return replace(row, **changes) if changes else row  # type: ignore[arg-type]


_SHORT = {"base": "not-personalized", "prediction": "hypernetwork-only", "personalized": "hyperdreambooth"}
"""Short names of the rows that every table has."""

ROWS: dict[str, Row] = {
    "copier": Row("copier", "the photo through the autoencoder", _copier, trivial=True),
    "filter": Row("filter", "the photo through the filters", _filtered, trivial=True),
    "other-photo": Row("other-photo", "other real photos of the person", _other_photos, trivial=True),
    **{short: _of_method(METHODS[name], name=short) for short, name in _SHORT.items()},
    **{name: _of_method(method) for name, method in METHODS.items() if name not in _SHORT.values()},
}
"""Every row by its name, but those of changed settings."""

USUAL = ("copier", "filter", "other-photo", *_SHORT)
"""What is measured when no row is named."""
