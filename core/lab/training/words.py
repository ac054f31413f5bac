"""What is to be seen in a training picture, in words: from its columns, mirrored with it, and as a style leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.hyperdreambooth.styles.styles import Style

Words = tuple[str, ...]

WORD_COLUMNS = ("source", "attributes", "words", "yaw", "mouth_open")
"""The columns that words are made of."""

SLIGHTLY = 7.0
"""Degrees of yaw from which a head is said to be turned slightly; the data's own words begin at 15."""

CLOSED = 0.03
"""The gap between the lips, over the width of the mouth, up to which a mouth is said to be closed."""

_BACKGROUND_STAYS = frozenset({"photo", "oil painting", "cartoon", "pixel art portrait"})
_COLOURS_STAY = _BACKGROUND_STAYS | {"watercolor painting"}
_TONES_STAY = _COLOURS_STAY | {"black and white photograph"}
_COLOURED = frozenset({"lipstick", "heavy makeup", "rosy cheeks", "pale skin", "red hair"})
_TONES = frozenset({"dark", "bright", "blond hair", "black hair", "brown hair", "gray hair"})
_OF_THE_PHOTO = frozenset({"black and white", "dark", "bright"})


def words_of(columns: Mapping[str, object]) -> Words:
    """The words of one row of a parquet file: ``attributes``, ``words`` where there are any, and what numbers say.

    Numbers (``yaw`` in degrees, ``mouth_open``) add "looking slightly left / right", "mouth closed" and, where smiles
    are labelled and there is none, "serious". A missing column adds nothing.
    """
    found = [*_strings(columns.get("attributes")), *_strings(columns.get("words"))]
    yaw, mouth = columns.get("yaw"), columns.get("mouth_open")
    turned = any(word.startswith(("looking left", "looking right")) for word in found)
    if isinstance(yaw, float) and SLIGHTLY <= abs(yaw) < 15 and not turned:
        found.append(f"looking slightly {'left' if yaw < 0 else 'right'}")
    if isinstance(mouth, float) and mouth <= CLOSED and "mouth open" not in found:
        found.append("mouth closed")
        if "smiling" not in found and columns.get("source") in {"celeba", "lfw"}:
            found.append("serious")
    return tuple(dict.fromkeys(found))


def visible_in(words: Sequence[str], style: Style) -> Words:
    """The words that are still true, and still visible, when a picture is in ``style``.

    Filters repaint backgrounds, colours or tones: a word for what they paint over would come to stand for the style.
    """
    return tuple(word for word in words if not _painted_over(word, style.name))


def _painted_over(word: str, style: str) -> bool:
    if style == "photo":
        return False
    if word in _OF_THE_PHOTO:
        return True
    if word.endswith(" background"):
        return style not in _BACKGROUND_STAYS
    return (word in _COLOURED and style not in _COLOURS_STAY) or (word in _TONES and style not in _TONES_STAY)


def _strings(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list | tuple) else []
