"""Sunglasses and masks drawn on aligned faces: what the covers' layers learn from beside photos.

Sizes are fractions of the picture's side, in FFHQ's framing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

from core.hyperdreambooth.faces.alignment import FRAME

SHAPES = 4
"""Of lenses: round, square, drops, one band. Of masks: with folds, plain, a dome, a scarf."""

_CLOTHS = ((150, 190, 220), (235, 238, 240), (30, 30, 34), (120, 125, 130), (180, 60, 70), (60, 90, 60), (40, 60, 120))

Point = tuple[float, float]


def draw_sunglasses(face: Image.Image, shape: int, random: np.random.Generator) -> Image.Image:
    """The face behind dark lenses."""
    lenses = _band(face.width, random) if shape == 3 else _lenses(face.width, shape, random)
    rims = lenses.filter(ImageFilter.MaxFilter(random.choice([3, 5]).item()))
    if shape != 3:
        _bridge(rims)
    dark = random.uniform(5, 70, 3) if random.random() < 0.75 else random.uniform(10, 150, 3)
    glass = Image.blend(face, _paint(_reflections(face.width, dark, random)), random.uniform(0.85, 1))
    worn = face.copy()
    worn.paste(_colour(random.uniform(0, 60, 3)), (0, 0, *face.size), rims)
    worn.paste(glass, (0, 0), lenses)
    return worn


def draw_mask(face: Image.Image, shape: int, random: np.random.Generator) -> Image.Image:
    """The face behind a mask, or a scarf, over nose, mouth and chin."""
    outline = _scarf(random) if shape == 3 else _mask(random)
    cloth = random.choice(_CLOTHS) + random.normal(0, 12, 3) if random.random() < 0.7 else random.uniform(20, 245, 3)
    worn = face.copy()
    if shape != 3:
        draw = ImageDraw.Draw(worn)
        for line in _loops(face.width):
            draw.line(line, fill=_colour(cloth), width=max(1, face.width // 100))
    cover = _filled(face.width, _rounded(outline) if random.random() < 0.8 else outline, random.uniform(0.5, 2.5))
    worn.paste(_paint(_folds(face.width, cloth, shape, random)), (0, 0), cover)
    return worn


def move(face: Image.Image, random: np.random.Generator) -> Image.Image:
    """The face turned, scaled and shifted a little, as a detector's landmarks err, and of fewer pixels."""
    angle, scale = random.normal(0, 0.035), 1 + random.normal(0, 0.035)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    middle = np.full(2, face.width / 2)
    shift = middle - turn @ middle + random.normal(0, 0.014, 2) * face.width
    matrix = np.column_stack([turn, shift]).ravel().tolist()
    moved = face.transform(face.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    side = round(face.width * random.uniform(0.4, 1))
    return moved.resize((side, side), Image.Resampling.LANCZOS)


def _lenses(side: int, shape: int, random: np.random.Generator) -> Image.Image:
    wide, high, lower = random.uniform(0.075, 0.12), random.uniform(0.045, 0.09), random.uniform(-0.005, 0.03)
    mask = Image.new("L", (2 * side, 2 * side))
    draw = ImageDraw.Draw(mask)
    for x, y in FRAME[:2] + np.array([0, lower]):
        box = [2 * side * edge for edge in (x - wide, y - high, x + wide, y + high)]
        match shape:
            case 0:
                draw.ellipse(box, fill=255)
            case 1:
                draw.rounded_rectangle(box, radius=side * random.uniform(0.01, 0.08), fill=255)
            case _:
                draw.pieslice([box[0], box[1] - 0.6 * (box[3] - box[1]), *box[2:]], -20, 200, fill=255)
    return mask.resize((side, side), Image.Resampling.LANCZOS)


def _band(side: int, random: np.random.Generator) -> Image.Image:
    high, y = random.uniform(0.045, 0.09), FRAME[0, 1] + random.uniform(-0.005, 0.03)
    upper = [(0.25, y - high), (0.5, y - 0.9 * high), (0.75, y - high), (0.74, y + 0.8 * high)]
    lower = [(0.57, y + high), (0.5, y + 0.3 * high), (0.43, y + high), (0.26, y + 0.8 * high)]
    outline = upper + lower
    return _filled(side, _rounded(outline) if random.random() < 0.7 else outline, 1.0)


def _bridge(rims: Image.Image) -> None:
    side, y = rims.width, 0.45 * rims.width
    draw = ImageDraw.Draw(rims)
    for left, right in ((0.46, 0.54), (0.17, 0.28), (0.72, 0.83)):
        draw.line([(left * side, y), (right * side, y)], fill=255, width=max(1, side // 60))


def _mask(random: np.random.Generator) -> list[Point]:
    top, low, wide = random.uniform(0.545, 0.615), random.uniform(0.8, 0.9), random.uniform(0.2, 0.25)
    right = [(0.08, top + 0.02), (wide, top + 0.01), (0.95 * wide, 0.74), (0.1, low - 0.02)]
    outline = [(0.5, top), *((0.5 + x, y) for x, y in right), (0.5, low), *((0.5 - x, y) for x, y in right[::-1])]
    return [(x + random.normal(0, 0.012), y + random.normal(0, 0.012)) for x, y in outline]


def _scarf(random: np.random.Generator) -> list[Point]:
    top, wide = random.uniform(0.56, 0.62), random.uniform(0.2, 0.25)
    right = [(wide, top), (wide, 0.78), (0.9 * wide, 1.0)]
    return [(0.5, top + 0.01), *((0.5 + x, y) for x, y in right), *((0.5 - x, y) for x, y in right[::-1])]


def _loops(side: int) -> list[list[Point]]:
    ends = [((0.5 + s * 0.21, y), (0.5 + s * 0.3, ear)) for s in (-1, 1) for y, ear in ((0.6, 0.52), (0.74, 0.6))]
    return [[(x * side, y * side) for x, y in line] for line in ends]


def _filled(side: int, outline: Sequence[Point], blur: float) -> Image.Image:
    """White within the outline, with an edge so soft in half pixels."""
    mask = Image.new("L", (2 * side, 2 * side))
    ImageDraw.Draw(mask).polygon([(2 * side * x, 2 * side * y) for x, y in outline], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(blur)).resize((side, side), Image.Resampling.LANCZOS)


def _rounded(outline: Sequence[Point]) -> list[Point]:
    """A closed Catmull-Rom curve through the points."""
    points, curve = np.array(outline), []
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    for before, a, b, after in zip(*(np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2)), strict=True):
        bend = 2 * before - 5 * a + 4 * b - after
        curve.append(a + ((b - before) * t + bend * t**2 + (3 * a - before - 3 * b + after) * t**3) / 2)
    return [(x, y) for x, y in np.concatenate(curve).tolist()]


def _reflections(
    side: int, dark: Float[np.ndarray, " 3"], random: np.random.Generator
) -> Float[np.ndarray, "side side 3"]:
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    pixels: Float[np.ndarray, "side side 3"] = dark * (1 + random.uniform(0, 4) * (y - 0.45))[..., None]
    if random.random() < 0.5:
        for middle in (0.37, 0.61):
            spot = np.exp(-(((x - middle) / 0.03) ** 2) - ((y - 0.44) / 0.02) ** 2)
            pixels = pixels + random.uniform(20, 120) * spot[..., None]
    return pixels


def _folds(
    side: int, cloth: Float[np.ndarray, " 3"], shape: int, random: np.random.Generator
) -> Float[np.ndarray, "side side 3"]:
    """Cloth in light from above, with folds (0), a pattern at times (1, 3) or a dome (2)."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    light = (1 - random.uniform(0.2, 1) * np.abs(x - 0.5)) * (1 + random.uniform(-0.75, 0.45) * (y - 0.7))
    if shape == 0:
        for fold in (0.62, 0.68, 0.74):
            light *= 1 - random.uniform(0.1, 0.3) * np.exp(-(((y - fold - random.normal(0, 0.01)) / 0.006) ** 2))
    elif shape == 2:
        light *= 1 + 0.25 * np.exp(-((x - 0.5) ** 2 + (y - 0.68) ** 2) / 0.01)
    elif random.random() < 0.5:
        angle, pitch = random.uniform(0, np.pi), random.uniform(40, 150)
        light *= 1 + 0.4 * np.sin(pitch * (x * np.cos(angle) + y * np.sin(angle)))
    pixels: Float[np.ndarray, "side side 3"] = cloth * light[..., None]
    return pixels + random.normal(0, random.uniform(0, 4), (side, side, 3))


def _paint(pixels: Float[np.ndarray, "side side 3"]) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _colour(values: Float[np.ndarray, " 3"]) -> tuple[int, int, int]:
    red, green, blue = values.clip(0, 255).astype(int).tolist()
    return red, green, blue
