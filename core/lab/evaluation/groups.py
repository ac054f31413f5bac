"""Likeness by apparent gender and by skin tone, and what the autoencoder already loses in each group.

Gender is the data's own word about the photo. Skin tone is the individual typology angle of the cheeks (Chardon et al.
1991), which depends on the light of the photo as well: three groups of equal size, light to dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from core.lab.evaluation.colours import to_lab
from core.lab.evaluation.records import Record
from core.lab.evaluation.report import interval, plus_minus
from core.lab.evaluation.subjects import Subject

CHEEKS = ((0.54, 0.64, 0.34, 0.44), (0.54, 0.64, 0.56, 0.66))
"""Top, bottom, left, right of both cheeks in the framing, as shares of the side."""


def group_table(
    chosen: Sequence[Subject], records: Sequence[Record], ceiling: Sequence[Record], *, minimum: int = 3
) -> str:
    """Markdown, a line a group: cosine with the photo, the ceiling, and what the ceiling does not explain of it.

    That is the distance from a straight line fitted to all people. Small groups are left out.
    """
    likeness = np.array([float(record["photo"]) for record in records])
    kept = np.array([float(record["photo"]) for record in ceiling])
    left = likeness - np.polyval(np.polyfit(kept, likeness, 1 if np.ptp(kept) else 0), kept)
    lines = ["| group | people | with the photo | ceiling | beyond what the ceiling explains |", "|---" * 5 + "|"]
    for name, members in groups(chosen).items():
        if int(members.sum()) >= minimum:
            cells = (plus_minus(*interval(values[members])) for values in (likeness, kept, left))
            lines.append(f"| {name} | {members.sum()} | {' | '.join(cells)} |")
    correlation = float(np.corrcoef(likeness, kept)[0, 1]) if len(likeness) > 2 else float("nan")
    lines += ["", f"Correlation between a person's likeness and the ceiling: {correlation:.2f}."]
    return "\n".join(lines) + "\n"


def groups(chosen: Sequence[Subject]) -> dict[str, np.ndarray]:
    """Name of a group to a mask over the people."""
    words = {word: np.array([word in subject.attributes for subject in chosen]) for word in ("man", "woman")}
    angles = np.array([typology_angle(subject.photo) for subject in chosen])
    low, high = np.quantile(angles, [1 / 3, 2 / 3])
    tones = {
        f"lighter skin (angle over {high:.0f}°)": angles > high,
        f"medium skin ({low:.0f}° to {high:.0f}°)": (angles > low) & (angles <= high),
        f"darker skin (up to {low:.0f}°)": angles <= low,
    }
    return {**words, **tones}


def typology_angle(photo: UInt8[np.ndarray, "h w 3"]) -> float:
    """The individual typology angle, degrees: ``atan((L* - 50) / b*)`` of the cheeks' median colour in CIELAB."""
    side = len(photo)
    patches = [photo[int(t * side) : int(b * side), int(x * side) : int(y * side)] for t, b, x, y in CHEEKS]
    colour = np.median(np.concatenate([patch.reshape(-1, 3) for patch in patches]), axis=0)
    lightness, _, yellow = to_lab(colour)
    return float(np.degrees(np.arctan2(lightness - 50, max(yellow, 1e-3))))
