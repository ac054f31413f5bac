"""A sheet of styles: one row a person, one column a style, as a person would look at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.evaluation.methods import METHODS
from core.lab.evaluation.metrics import prompts
from core.lab.evaluation.study import draw
from core.lab.evaluation.subjects import generated_faces
from core.lab.training.data import Faces


def style_sheet(bundle: Bundle, faces: Faces, folder: Path, *, seed: int, people: int = 20, group: int = 5) -> Path:
    """Personalize ``people`` generated faces (pictures of nobody) as the bundle has it and draw the plain prompt and
    every style that it finetunes with (all of them where it names none).

    The sheet holds generated pictures only, so that it may be published.
    """
    chosen = generated_faces(faces, people)
    asked = prompts(bundle.config.finetune.styles or tuple(STYLES), (), bundle.class_noun)
    rows = []
    for first in tqdm(range(0, len(chosen), group), desc="sheet of styles", unit="group"):
        part = chosen[first : first + group]
        for number, person in enumerate(METHODS["hyperdreambooth"].run(bundle, part, seed, None)):
            rows.append(draw(person, list(asked.values()), seed=seed + 1000 * (first + number)))
    file = folder / "styles.png"
    _draw(np.stack(rows), [style or "[V] face" for style in asked]).save(file)
    inputs = np.concatenate([subject.photo for subject in chosen])
    Image.fromarray(inputs).save(folder / "styles-inputs.png")
    return file


def _draw(grid: np.ndarray, labels: list[str], *, scale: int = 2, header: int = 16) -> Image.Image:
    rows, columns, side = grid.shape[:3]
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)
    image = Image.fromarray(sheet).resize((columns * side * scale, rows * side * scale), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (image.width, image.height + header), "white")
    canvas.paste(image, (0, header))
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(labels):
        draw.text((column * side * scale + 3, 2), _fitting(draw, label, side * scale - 6), fill="black")
    return canvas


def _fitting(draw: ImageDraw.ImageDraw, label: str, width: int) -> str:
    """As many of the words as there is room for."""
    words = label.split()
    while len(words) > 1 and draw.textlength(" ".join(words)) > width:
        words.pop()
    return " ".join(words)
