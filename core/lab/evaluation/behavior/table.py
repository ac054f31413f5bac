"""The tables: means over people with 95 % intervals, in Markdown and for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from core.lab.evaluation.records import Record
from core.lab.evaluation.report import Mean, interval, plus_minus

Rows = Mapping[str, Sequence[Record]]
Summary = dict[str, Mean]

BASE, FILTER = "base", "filter"
"""The rows that others are a share of."""

DRAWS = 1000
"""Samples of people, drawn with replacement, for the intervals of what is no mean."""

FEWEST = 5
"""People without whom such an interval says nothing."""

SEEDS = {"yaw": "yaw", "pitch": "pitch", "structure": "1 - SSIM"}
"""What varies between seeds."""

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "The photo again?": {
        "ssim": "SSIM with the photo",
        "yaw_follows": "correlation of yaw with the photo's",
        "pitch_follows": "of pitch",
        "found": "faces found",
        "score": "detector's score",
    },
    "Variety between seeds": {
        **{f"{key}_share": f"{heading}, share of the base's" for key, heading in SEEDS.items()},
        "yaw": "yaw, degrees",
        "pitch": "pitch, degrees",
        "structure": "1 - SSIM",
    },
    "Words": {
        "asked": "visible when asked",
        "unasked": "when not asked",
        "effect": "asked minus unasked",
        "pose_right": "pose or expression right",
        "pose_loss": "Sim(GT) lost by it",
    },
    "Styles": {
        "style_right": "right style",
        "style_gt": "Sim(GT)",
        "style_share": "Sim(GT) over the filter's",
    },
    "Cost": {"seconds": "seconds", "bytes": "bytes", "seconds_per_picture": "seconds a picture"},
}
"""Headings of the tables and of their columns."""

LIKENESS = {
    "sim_gt": "Sim(GT)",
    "sim_ref": "Sim(Ref)",
    "copy_paste": "copy-paste",
    "accepted": "accepted by another photo",
    "accepted_photo": "by the photo",
}
"""The columns of the table of each recogniser."""


def summarise(rows: Rows) -> dict[str, Summary]:
    """Each row's means over people, and what is a share of the base's or the filter's, with intervals."""
    return {name: _summary(records, rows) for name, records in rows.items()}


def _summary(records: Sequence[Record], rows: Rows) -> Summary:
    numbers = [{key: value for key, value in each.items() if isinstance(value, float | int)} for each in records]
    keys = dict.fromkeys(key for each in numbers for key in each)
    found = {key: interval(np.array([each[key] for each in numbers if key in each])) for key in keys}
    for key, of in (("yaw", "yaws"), ("pitch", "pitches")):
        pairs = [_pairs(each, key, of) for each in records if of in each]
        if mean := _resampled(pairs, _correlation):
            found[f"{key}_follows"] = mean
    for key, row in [*((key, BASE) for key in SEEDS), ("style_gt", FILTER)]:
        others = {each["identity"]: each for each in rows.get(row, ())}
        both = [(each, others[each["identity"]]) for each in records if each["identity"] in others]
        pairs = [np.array([[one[key], other[key]]]) for one, other in both if key in one and key in other]
        if mean := _resampled(pairs, _ratio):
            found["style_share" if key == "style_gt" else f"{key}_share"] = mean
    return found


def _pairs(record: Record, key: str, of: str) -> np.ndarray:
    """The photo's angle and a picture's, for each picture that has a face."""
    photo = record["photo"][key]
    return np.array([[photo, each] for each in record[of] if photo is not None and each is not None]).reshape(-1, 2)


def _resampled(people: Sequence[np.ndarray], figure: Callable[[np.ndarray], float]) -> Mean | None:
    """A figure of the pairs of all people, and its interval: 1.96 standard errors, over samples of people."""
    value = figure(np.concatenate(people)) if people else float("nan")
    if np.isnan(value):
        return None
    chosen = np.random.default_rng(0).integers(len(people), size=(DRAWS, len(people)))
    drawn = np.array([figure(np.concatenate([people[index] for index in each])) for each in chosen])
    return value, float(1.96 * np.nanstd(drawn)) if len(people) >= FEWEST else None


def _correlation(pairs: np.ndarray) -> float:
    if len(pairs) < 3 or min(pairs.std(0)) == 0:
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])


def _ratio(pairs: np.ndarray) -> float:
    one, other = pairs.mean(0)
    return float(one / other) if other else float("nan")


def markdown(summaries: Mapping[str, Summary], titles: Mapping[str, str], recognisers: Sequence[str]) -> str:
    """All tables."""
    sections = {
        **{f"By {name}": {f"{key}/{name}": title for key, title in LIKENESS.items()} for name in recognisers},
        **SECTIONS,
    }
    tables = [_table(heading, columns, summaries, titles) for heading, columns in sections.items()]
    return "\n".join([*filter(None, tables), words_table(summaries)])


def words_table(summaries: Mapping[str, Summary]) -> str:
    """A line for each word: asked and unasked, in every row that has words."""
    rows = {name: summary for name, summary in summaries.items() if "effect" in summary}
    words = dict.fromkeys(key.partition("/")[2] for row in rows.values() for key in row if key.startswith("asked/"))
    lines = ["## Each word: asked / not asked", "", f"| | {' | '.join(rows)} |", "|---" * (len(rows) + 1) + "|"]
    for word in words:
        cells = (f"{row[f'asked/{word}'][0]:.2f} / {row[f'unasked/{word}'][0]:.2f}" for row in rows.values())
        lines.append(f"| {word} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if words else ""


def _table(
    heading: str, columns: Mapping[str, str], summaries: Mapping[str, Summary], titles: Mapping[str, str]
) -> str:
    kept = [key for key in columns if any(key in summary for summary in summaries.values())]
    lines = [f"## {heading}", "", f"| | {' | '.join(columns[key] for key in kept)} |", "|---" * (len(kept) + 1) + "|"]
    for name, summary in summaries.items():
        if any(key in summary for key in kept):
            lines.append(f"| {titles[name]} | {' | '.join(_cell(key, summary) for key in kept)} |")
    return "\n".join(lines) + "\n" if kept else ""


def _cell(key: str, summary: Summary) -> str:
    if key not in summary:
        return ""
    mean, half = summary[key]
    return f"{mean:,.0f}" if key == "bytes" else plus_minus(mean, half, digits=1 if key in ("yaw", "pitch") else 3)
