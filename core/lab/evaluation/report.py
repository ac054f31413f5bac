"""Tables from records, in Markdown and JSON, and a grid of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.lab.classifier import ClassifierConfig
from core.lab.evaluation.records import Record

COLUMNS = {
    "photo": "with the photo",
    "others": "with other photos",
    "strangers": "with other people",
    "accepted": "accepted",
    "dino": "DINO",
    "clip_i": "CLIP-I",
    "clip_t": "CLIP-T",
    "style_accuracy": "style accuracy",
    "styled": "in styles, with the photo",
    "filtered": "the photo through the filters, with the photo",
    "attribute_accuracy": "attribute accuracy",
    "diversity": "diversity",
    "seconds": "seconds",
    "times": "HyperDreamBooth's seconds, times",
    "bytes": "bytes",
}
"""Numbers of a record and how a table heads them; one that no record has is left out."""

_PLAIN = ("seconds", "times", "bytes")


Mean = tuple[float, float | None]
"""A mean over people and the half-width of its 95 % interval; None for one person alone."""


def summarise(records: Sequence[Record]) -> dict[str, Mean]:
    """Each number's mean over people and its interval."""
    keys = [key for key in records[0] if key != "identity"]
    return {key: interval(np.array([float(record[key]) for record in records if key in record])) for key in keys}


def interval(values: np.ndarray) -> Mean:
    """Mean and half-width of a 95 % interval, by Student's t distribution."""
    if len(values) < 2:
        return float(np.mean(values)), None
    return float(np.mean(values)), _quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5


def _quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: a table, then two terms of Abramowitz and Stegun 26.7.5 (within 0.002)."""
    few = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return few[freedom - 1] if freedom <= len(few) else 1.96 + 2.372 / freedom + 2.823 / freedom**2


def table(rows: Mapping[str, Mapping[str, Mean]], reasons: Mapping[str, str]) -> str:
    """Markdown: a line a method, then what was left out and why."""
    columns = [key for key in COLUMNS if any(key in row for row in rows.values())]
    lines = ["| | " + " | ".join(COLUMNS[key] for key in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(_cell(key, row) for key in columns)} |" for title, row in rows.items()]
    lines += ["", *(f"Left out: {what}: {why}." for what, why in reasons.items())] if reasons else []
    return "\n".join(lines) + "\n"


def by_style(summary: Mapping[str, Mean]) -> dict[str, dict[str, Mean]]:
    """The rows of a table of styles: of a method's summary, what it has of each one (``styled/neon sign``)."""
    rows: dict[str, dict[str, Mean]] = {}
    for key, mean in summary.items():
        column, _, style = key.partition("/")
        if style:
            rows.setdefault(style, {})[column] = mean
    return rows


def differences(rows: Mapping[str, Sequence[Record]], first: str) -> dict[str, dict[str, Mean]]:
    """How much more than the ``first`` row the others have, person by person: the mean and its interval.

    All rows are of the same people and seeds, so that this says more than the two rows' own intervals.
    """
    found: dict[str, dict[str, Mean]] = {}
    for title in [title for title in rows if title != first]:
        pairs = list(zip(rows[title], rows[first], strict=True))
        for key in [key for key in COLUMNS if key not in _PLAIN]:
            more = [float(one[key]) - float(other[key]) for one, other in pairs if key in one and key in other]
            if more:
                found.setdefault(title, {})[key] = interval(np.array(more))
    return found


def classifier_accuracy(classifier: ClassifierConfig) -> str:
    """A sentence: how often the classifier is right, on real pictures of people it never saw."""
    said = f"{classifier.style_accuracy:.1%} of styles"
    if found := sorted(classifier.attribute_accuracy.values()):
        said += f" and {found[0]:.1%} to {found[-1]:.1%} of each attribute (balanced)"
    return f"Styles and attributes are measured by the bundle's classifier, right on {said} of people it never saw.\n"


def grid(folder: Path, names: Sequence[str], *, people: int = 10) -> None:
    """``NAME.png`` for each method: one row a person, as the records' strips have them."""
    for name in names:
        strips = sorted((folder / "records" / name).glob("*.png"))[:people]
        if strips:
            rows = [_read(strip) for strip in strips]
            Image.fromarray(np.concatenate(rows, axis=0)).save(folder / f"{name}.png")


def _read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _cell(key: str, row: Mapping[str, Mean]) -> str:
    if key not in row:
        return ""
    mean, half = row[key]
    if key in _PLAIN:
        return f"{mean:,.0f}" if key == "bytes" else f"{mean:.1f}"
    return plus_minus(mean, half, digits=1 if key == "diversity" else 3)


def plus_minus(mean: float, half: float | None, *, digits: int = 3) -> str:
    """A mean and its interval, to be read."""
    return f"{mean:.{digits}f}" if half is None else f"{mean:.{digits}f} ± {half:.{digits}f}"
