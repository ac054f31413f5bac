"""The words whose effect is measured: each as a prompt without a subject says it, and as a subject's prompt does.

The same seeds draw with the word and without it, so that what differs is the word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """A prompt that asks for something: without a subject (``base``), and of a subject. The noun is left open."""

    base: str
    subject: str

    def prompt(self, noun: str, *, has_subject: bool) -> str:
        """The prompt as it is drawn."""
        return (self.subject if has_subject else self.base).format(noun=noun)


PLAIN = Ask("a {noun}", "a [V] {noun}")
"""What asks for nothing: all others are compared with it."""


def _after(words: str) -> Ask:
    return Ask(f"a {{noun}}{words}", f"a [V] {{noun}}{words}")


def _before(adjective: str) -> Ask:
    """Captions have adjectives before the noun where there is no subject, and after a comma where there is one."""
    return Ask(f"a{'n' if adjective[0] in 'aeiou' else ''} {adjective} {{noun}}", f"a [V] {{noun}}, {adjective}")


ASKS: Mapping[str, Ask] = {
    "hat": _after(" with a hat"),
    "glasses": _after(" with glasses"),
    "beard": _after(" with a beard"),
    "smiling": _before("smiling"),
    "blond hair": _after(" with blond hair"),
    "black hair": _after(" with black hair"),
    "gray hair": _after(" with gray hair"),
    "bald": _before("bald"),
    "bangs": _after(" with bangs"),
    "lipstick": _after(" with lipstick"),
    "mouth wide open": _after(", mouth wide open"),
    "looking left": _after(", looking left"),
    "looking right": _after(", looking right"),
    "old": _before("old"),
    "young": _before("young"),
    "on a black background": _after(", on a black background"),
    "on a blue background": _after(", on a blue background"),
    "on a green background": _after(", on a green background"),
}
"""Words whose effect is measured, by the names that captions have for them."""

POSES: Mapping[str, Ask] = {
    "looking left": ASKS["looking left"],
    "looking right": ASKS["looking right"],
    "looking up": _after(", looking up"),
    "smiling": ASKS["smiling"],
    "serious": _before("serious"),
}
"""Poses and expressions that a subject is asked for; "serious" is a neutral expression."""
