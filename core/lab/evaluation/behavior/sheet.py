"""Sheets to be looked over: a line a person, with seeds, poses and expressions, attributes and styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from tqdm import tqdm

from core.hyperdreambooth.model.bundle import Bundle
from core.lab.evaluation.behavior.rows import ROWS, Made, Plan
from core.lab.evaluation.subjects import Subject, generated_faces
from core.lab.training.data import Faces

SEEDS = 3
WORDS = ("looking left", "looking right", "looking up", "smiling", "glasses", "hat", "beard", "blond hair")
"""Four poses and expressions, four attributes."""
STYLES = 6
"""The first of the bundle's."""

Pictures = UInt8[np.ndarray, "n h w 3"]


def labels(plan: Plan, *, photos: Sequence[str] = ("photo",)) -> list[str]:
    """The headings of the columns."""
    return [*photos, *[f"seed {n}" for n in range(min(SEEDS, plan.pictures))], *_words(plan), *plan.styles[:STYLES]]


def line(photos: Sequence[np.ndarray], made: Made, plan: Plan) -> Pictures:
    """The pictures of one person, in the order of the headings."""
    asked = [made.asked[word][0] for word in _words(plan)]
    styled = [made.styled[name][0] for name in plan.styles[:STYLES]]
    return np.stack([*photos, *made.plain[:SEEDS], *asked, *styled])


def save_line(subject: Subject, made: Made, plan: Plan, file: Path) -> None:
    """The line of one person, with the photo and another one, as a file for `join_lines`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(line([subject.photo, subject.others[0]], made, plan), axis=1)).save(file)


def join_lines(folder: Path, plan: Plan, file: Path) -> None:
    """One sheet of the lines in a folder; nothing where there are none."""
    headings = labels(plan, photos=("photo", "another photo"))
    lines = [_opened(each) for each in sorted(folder.glob("*.png"))]
    if lines:
        rows = [np.stack(np.split(each, len(headings), axis=1)) for each in lines]
        _sheet(np.stack(rows), headings).save(file)


def card(
    bundle: Bundle, faces: Faces, styles: Sequence[str], file: Path, *, seed: int, people: int = 20, group: int = 5
) -> None:
    """Personalize ``people`` generated faces (of no real person) as the bundle has it, and draw a sheet of them.

    The sheet holds generated pictures only, so that it may be published on the bundle's card.
    """
    plan, chosen, lines = Plan(SEEDS, WORDS, tuple(styles[:STYLES])), generated_faces(faces, people), []
    for first in tqdm(range(0, len(chosen), group), desc="card", unit="group"):
        part = chosen[first : first + group]
        for number, drawn in enumerate(ROWS["personalized"].make(bundle, part, seed)):
            lines.append(line([part[number].photo], drawn(plan, seed + 1000 * (first + number)), plan))
    file.parent.mkdir(parents=True, exist_ok=True)
    _sheet(np.stack(lines), labels(plan)).save(file)


def _words(plan: Plan) -> list[str]:
    return [word for word in WORDS if word in plan.words]


def _opened(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _sheet(grid: UInt8[np.ndarray, "rows columns h w 3"], headings: Sequence[str], *, header: int = 16) -> Image.Image:
    """All pictures under their headings, small ones enlarged to 128 pixels."""
    rows, columns, side = grid.shape[:3]
    wide = max(128, side)
    pictures = Image.fromarray(grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3))
    canvas = Image.new("RGB", (columns * wide, rows * wide + header), "white")
    canvas.paste(pictures.resize((columns * wide, rows * wide), Image.Resampling.BICUBIC), (0, header))
    draw = ImageDraw.Draw(canvas)
    for column, heading in enumerate(headings):
        draw.text((column * wide + 3, 2), _fitting(draw, heading, wide - 6), fill="black")
    return canvas


def _fitting(draw: ImageDraw.ImageDraw, label: str, width: int) -> str:
    """The first words of the label that fit into ``width`` pixels."""
    words = label.split()
    while len(words) > 1 and draw.textlength(" ".join(words)) > width:
        words.pop()
    return " ".join(words)
