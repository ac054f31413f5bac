"""A contact sheet: the photo, and beside it a column of pictures for each prompt, under its caption."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE = 160
GAP = 12
CAPTION_LINES = 3
LINE = 17
PAPER, INK = "white", "#222222"


def contact_sheet(photo: Image.Image, columns: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """An RGB picture. `columns` has the pictures of each caption, in order; they are enlarged to the tile's size."""
    rows = max((len(pictures) for pictures in columns.values()), default=1)
    top = GAP + CAPTION_LINES * LINE
    step = TILE + GAP
    sheet = Image.new("RGB", (GAP + step * (1 + len(columns)), top + GAP + step * rows), PAPER)
    for at, (caption, pictures) in enumerate([("the photo", [photo]), *columns.items()]):
        left = GAP + at * step
        _draw_caption(sheet, caption, left, top)
        for row, picture in enumerate(pictures):
            sheet.paste(_tile(picture), (left, top + GAP // 2 + row * step))
    return sheet


def _draw_caption(sheet: Image.Image, caption: str, left: int, bottom: int) -> None:
    """At most CAPTION_LINES lines, the last one just above the pictures."""
    font = ImageFont.load_default(size=13)
    lines = textwrap.wrap(caption, width=23, max_lines=CAPTION_LINES, placeholder=" …")
    draw = ImageDraw.Draw(sheet)
    for up, line in enumerate(reversed(lines), start=1):
        draw.text((left, bottom - up * LINE), line, fill=INK, font=font)


def _tile(picture: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    return ImageOps.fit(upright, (TILE, TILE), method=Image.Resampling.LANCZOS)
