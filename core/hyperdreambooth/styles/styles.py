"""Styles a base model learns: photos turned into sketches, paintings and statues, so that prompts can name them.

The training pictures are photos. A model that saw nothing else could not draw "a pencil sketch of a face", so photos
are also passed through one of these filters, with a caption that names it. Every filter is deterministic, keeps the
features of the face (the person must survive the style) and costs under a millisecond a picture at 64 pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.hyperdreambooth.styles import filters as f
from core.hyperdreambooth.styles.filters import Planes
from core.hyperdreambooth.styles.tiles import cells

Pictures = NDArray[np.uint8]

_CHUNK = 16
"""Pictures filtered at a time: small enough that the float planes stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Style:
    """A filter and the prompts for it. `phrasings` have one slot, {subject}; the first is the canonical prompt."""

    name: str
    apply: Callable[[Pictures], Pictures]
    phrasings: tuple[str, ...]


def _on_pictures(paint: Callable[[Planes], Planes]) -> Callable[[Pictures], Pictures]:
    """Make a filter of planes [n, 3, h, w] in 0..1 one of uint8 pictures [n, h, w, 3]; ValueError for anything else."""

    def apply(pictures: Pictures) -> Pictures:
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(f"pictures must be uint8 [n, h, w, 3], not {pictures.dtype} {list(pictures.shape)}")
        painted = np.empty_like(pictures, order="C")
        for start in range(0, len(pictures), _CHUNK):
            chunk = pictures[start : start + _CHUNK].transpose(0, 3, 1, 2)
            planes = paint(np.ascontiguousarray(chunk, dtype=np.float32) / np.float32(255))
            painted[start : start + _CHUNK] = (f.clamp(planes) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)
        return painted

    return apply


def _pencil_sketch(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo))
    lines = f.step(grey / (f.blur(grey, 2.2) + 0.03), 0.55, 0.98)
    shade = f.step(grey, 0.05, 0.6)
    strokes = f.hatching(*photo.shape[2:], 3.0, 40.0)
    paper = 0.97 - (1 - lines) * 0.72 - (1 - shade) * (0.12 + 0.38 * strokes)
    return f.tint(f.clamp(paper), (0.0, "#2b2b2f"), (1.0, "#fbfaf6"))


def _charcoal_drawing(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo), spread=0.3, middle=0.48)
    smudged = f.mix(grey, f.blur(grey, 1.2), 0.5) - f.ink_lines(grey, gain=6.0) * 0.4
    tones = f.step(smudged, 0.12, 0.78)
    tooth = f.grain(*photo.shape[2:], 0.4, 0.4, 11) * 0.06 + f.grain(*photo.shape[2:], 1.4, 0.4, 12) * 0.05
    rubbed = tones + tooth * (0.45 + 2.2 * tones * (1 - tones))
    return f.tint(f.clamp(rubbed), (0.0, "#080706"), (0.4, "#3c3a37"), (0.75, "#a8a298"), (1.0, "#ded8cc"))


def _oil_painting(photo: Planes) -> Planes:
    size = photo.shape[2:]
    dabs = f.brush(photo, f.pixels(1.0, min(size)))
    rich = f.saturate(f.mix(dabs, photo * 1.6 - f.blur(photo, 1.2) * 0.6, 0.4), 1.7)
    rich = f.mix(rich, rich * rich * (3 - 2 * rich), 0.6)
    strokes = np.where(f.grain(*size, 4.0, 4.0, 20) > 0, f.grain(*size, 0.5, 2.2, 21), f.grain(*size, 2.2, 0.5, 22))
    warm = np.array([1.05, 0.96, 0.78], dtype=np.float32).reshape(1, 3, 1, 1)
    return rich * warm * (1 + strokes * 0.08) + f.emboss(f.luma(dabs), 0.4) * 0.22


def _watercolor(photo: Planes) -> Planes:
    height, width = photo.shape[2:]
    wash = f.saturate(f.mix(f.brush(photo, f.pixels(1.0, height)), photo, 0.5), 1.7)
    rims = np.clip(f.edges(f.luma(photo), 0.5) * 1.5, 0, 0.4)
    pools = f.grain(height, width, 2.5, 2.5, 31)
    paint = (1 - (1 - wash) * 0.72) * (1 - rims) * (1 + pools * 0.035)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    border = np.maximum(np.abs(x), np.abs(y))[None, None] + pools * 0.09
    return f.mix(paint, 0.985, f.step(border, 0.74, 0.94))


def _cartoon(photo: Planes) -> Planes:
    flat = f.brush(photo, f.pixels(1.0, min(photo.shape[2:])))
    grey = f.luma(flat)
    tones = np.round(f.even_tones(grey, 0.25, 0.56) * 4) / 4
    colours = f.saturate(f.clamp(flat * ((tones * 0.75 + 0.25) / (grey + 0.05))), 1.9)
    ink = f.step(f.ink_lines(f.even_tones(f.luma(photo)), 0.5, 1.5, 12.0), 0.35, 0.75)
    return colours * (1 - ink)


def _pop_art(photo: Planes) -> Planes:
    grey = f.even_tones(f.blur(f.luma(photo), 0.4), 0.27)
    grey = grey - f.ink_lines(grey, gain=6.0) * 0.3
    return f.tint(
        f.clamp(grey),
        (0.0, "#1c1259"), (0.24, "#1c1259"), (0.28, "#e5127d"), (0.46, "#e5127d"),
        (0.50, "#ff8a1e"), (0.66, "#ffa51e"), (0.70, "#ffe93b"), (0.86, "#ffe93b"), (0.9, "#38e0d2"), (1.0, "#38e0d2"),
    )  # fmt: skip


def _sepia_photograph(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo), 0.26, 0.52)
    return f.tint(grey, (0.0, "#2a1608"), (0.5, "#96693c"), (1.0, "#f6e3bd"))


def _black_and_white(photo: Planes) -> Planes:
    grey = f.mix(f.luma(photo), f.even_tones(f.luma(photo), 0.27, 0.47), 0.5)
    return np.repeat(grey * grey * (3 - 2 * grey), 3, axis=1)


def _pixel_art(photo: Planes) -> Planes:
    height, width = photo.shape[2:]
    block = f.pixels(2.0, min(height, width))
    rows, columns = height // block * block, width // block * block
    shape = (len(photo), 3, rows // block, block, columns // block, block)
    small = photo[:, :, :rows, :columns].reshape(shape).mean(axis=(3, 5))
    crisp = f.saturate(f.clamp(small + (small - f.blur(small, 2.0)) * 0.7), 1.5)
    checker = np.indices(crisp.shape[2:]).sum(axis=0) % 2 * 0.3 - 0.15
    squares = f.clamp(np.round(crisp * 5 + checker.astype(np.float32)) / 5)
    whole = squares.repeat(block, axis=2).repeat(block, axis=3)
    return np.pad(whole, ((0, 0), (0, 0), (0, height - rows), (0, width - columns)), mode="edge")


def _mosaic(photo: Planes) -> Planes:
    cut = cells(*photo.shape[2:], 4.0, 0.4, 0.8, 41)
    vivid = f.saturate(f.clamp(photo * 1.7 - f.blur(photo, 1.5) * 0.7), 1.5)
    tiles = f.mix(cut.means(vivid), vivid, 0.5)
    return f.mix(tiles, 0.8, cut.joint * 0.42)


def _stained_glass(photo: Planes) -> Planes:
    height, width = photo.shape[2:]
    cut = cells(height, width, 11.0, 0.9, 1.0, 51)
    grey = f.even_tones(f.luma(photo), 0.27, 0.56)
    stops = ((0.0, "#1030d0"), (0.3, "#10a0c0"), (0.45, "#20b050"), (0.6, "#ffc820"), (1.0, "#e02040"))
    panes = cut.means(f.tint(f.clamp(0.5 + f.grain(height, width, 5.0, 5.0, 52) * 0.28), *stops))
    glass = f.mix(f.saturate(photo, 2.2), panes, 0.5) * (0.25 + 1.15 * grey)
    lead = np.maximum(cut.joint * 0.9, f.step(f.ink_lines(grey), 0.3, 0.9) * 0.8)
    return f.mix(glass, 0.03, lead)


def _neon(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo))
    tubes = f.clamp(f.edges(grey, 0.5) * 2.6 + f.ink_lines(grey, gain=8.0) * 0.6 - 0.12)
    across = np.linspace(0, 1, photo.shape[3], dtype=np.float32).reshape(1, 1, 1, -1)
    down = np.linspace(0, 1, photo.shape[2], dtype=np.float32).reshape(1, 1, -1, 1)
    hue = f.tint((across + down) / 2, (0.0, "#00f0ff"), (0.42, "#2a7bff"), (0.58, "#ff1fd0"), (1.0, "#ff5a1f"))
    night = f.tint(grey, (0.0, "#04020c"), (1.0, "#341c66"))
    return night + hue * (tubes + f.blur(tubes, 1.6) * 0.5) + f.clamp(tubes - 0.5)


def _statue(photo: Planes, relief: float, *stops: tuple[float, str]) -> Planes:
    """A ramp of one material over the evened tones, lit like a relief, before a darker background."""
    height, width = photo.shape[2:]
    grey = f.even_tones(f.blur(f.luma(photo), 0.5), 0.2)
    lit = grey + f.emboss(grey) * relief - f.ink_lines(grey, gain=5.0) * 0.15
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    outside = f.step(np.sqrt((x / 0.8) ** 2 + ((y - 0.1) / 1.0) ** 2), 0.85, 1.35)[None, None]
    return f.tint(f.clamp(lit * (1 - 0.75 * outside)), *stops)


def _bronze_statue(photo: Planes) -> Planes:
    return _statue(
        photo, 1.0,
        (0.0, "#06100c"), (0.3, "#2e3a22"), (0.5, "#8a5a20"), (0.7, "#d08a30"), (0.85, "#ffe090"), (1.0, "#ffffff"),
    )  # fmt: skip


def _marble_statue(photo: Planes) -> Planes:
    stone = _statue(
        photo, 0.8, (0.0, "#1c2536"), (0.25, "#6c7689"), (0.45, "#b4b9c4"), (0.65, "#e6e7ea"), (1.0, "#ffffff")
    )
    veins = 1 - f.clamp(np.abs(f.grain(*photo.shape[2:], 5.0, 5.0, 61)) * 7)
    return stone * (1 - veins * 0.1)


def _comic_book(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo), 0.26, 0.5)
    screen = f.dots(*photo.shape[2:], 4.0)
    paper = np.array([1.0, 0.9, 0.66], dtype=np.float32).reshape(1, 3, 1, 1)
    red = np.array([0.88, 0.12, 0.14], dtype=np.float32).reshape(1, 3, 1, 1)
    printed = f.mix(paper, red, f.step(grey - screen * 0.7, 0.14, -0.1))
    ink = np.maximum(f.step(grey, 0.3, 0.16), f.step(f.ink_lines(grey, 0.5, 1.6), 0.2, 0.8))
    return f.mix(printed, 0.05, ink)


def _blueprint(photo: Planes) -> Planes:
    height, width = photo.shape[2:]
    grey = f.even_tones(f.luma(photo))
    lines = f.clamp(f.edges(grey, 0.5) * 3.2 + f.ink_lines(grey, gain=12.0) - 0.15)
    pitch = f.pixels(8.0, min(height, width))
    grid = ((np.arange(height)[:, None] % pitch == 0) | (np.arange(width) % pitch == 0)).astype(np.float32)
    drawn = np.maximum(lines, grid[None, None] * 0.2) + grey * 0.2
    return f.tint(f.clamp(drawn), (0.0, "#082880"), (1.0, "#f2f8ff"))


def _woodcut_print(photo: Planes) -> Planes:
    grey = f.even_tones(f.luma(photo), 0.3, 0.52)
    grey = grey - f.ink_lines(grey, gain=8.0) * 0.45
    cuts = f.hatching(*photo.shape[2:], 3.0, 75.0) - 0.5
    carved = f.step(grey - cuts * 0.34, 0.3, 0.56)
    return f.tint(carved, (0.0, "#1d120c"), (1.0, "#ecd9ae"))


def _style(name: str, article: str, paint: Callable[[Planes], Planes], *phrasings: str) -> Style:
    """A style whose canonical prompt is "<article> <name> of {subject}"."""
    return Style(name, _on_pictures(paint), (f"{article} {name} of {{subject}}", *phrasings))


_ALL = (
    _style("pencil sketch", "a", _pencil_sketch, "{subject}, pencil drawing", "pencil sketch portrait of {subject}",
           "{subject}, pencil sketch", "a pencil drawing of {subject}", "a sketch of {subject}"),
    _style("charcoal drawing", "a", _charcoal_drawing, "{subject}, charcoal drawing", "{subject} in charcoal",
           "charcoal portrait of {subject}", "a charcoal sketch of {subject}"),
    _style("oil painting", "an", _oil_painting, "{subject}, oil painting", "{subject}, oil on canvas",
           "oil portrait of {subject}", "a painting of {subject}", "an oil painting portrait of {subject}"),
    _style("watercolor painting", "a", _watercolor, "{subject}, watercolor", "a watercolor of {subject}",
           "watercolor portrait of {subject}", "{subject} in watercolor"),
    _style("cartoon", "a", _cartoon, "{subject}, cartoon", "cartoon portrait of {subject}",
           "{subject} as a cartoon character", "a cartoon drawing of {subject}"),
    _style("pop art portrait", "a", _pop_art, "{subject}, pop art", "pop art of {subject}",
           "a pop art picture of {subject}", "{subject} in pop art style"),
    _style("sepia photograph", "a", _sepia_photograph, "{subject}, sepia", "{subject} in sepia",
           "a sepia photo of {subject}", "{subject}, sepia photograph", "a vintage photo of {subject}"),
    _style("black and white photograph", "a", _black_and_white, "{subject}, black and white",
           "a black and white photo of {subject}", "black and white portrait of {subject}",
           "a monochrome photo of {subject}"),
    _style("pixel art portrait", "a", _pixel_art, "{subject}, pixel art", "pixel art of {subject}",
           "{subject} as a pixel art character", "a pixel art picture of {subject}"),
    _style("mosaic", "a", _mosaic, "{subject}, mosaic", "{subject} as a mosaic", "mosaic portrait of {subject}",
           "a tile mosaic of {subject}"),
    _style("stained glass window", "a", _stained_glass, "{subject}, stained glass",
           "stained glass portrait of {subject}", "{subject} in stained glass", "a stained glass picture of {subject}"),
    _style("neon sign", "a", _neon, "{subject}, neon", "neon portrait of {subject}", "{subject} in neon lights",
           "a neon drawing of {subject}"),
    _style("bronze statue", "a", _bronze_statue, "{subject}, bronze statue", "{subject} as a bronze statue",
           "a bronze bust of {subject}", "a bronze sculpture of {subject}"),
    _style("marble statue", "a", _marble_statue, "{subject}, marble statue", "{subject} as a marble statue",
           "a marble bust of {subject}", "a marble sculpture of {subject}"),
    _style("comic book drawing", "a", _comic_book, "{subject}, comic book", "{subject} in a comic book",
           "comic portrait of {subject}", "a comic of {subject}", "{subject}, comic book style"),
    _style("blueprint", "a", _blueprint, "{subject}, blueprint", "{subject} as a blueprint",
           "blueprint drawing of {subject}", "a blueprint plan of {subject}"),
    _style("woodcut print", "a", _woodcut_print, "{subject}, woodcut", "a woodcut of {subject}",
           "woodcut portrait of {subject}", "{subject}, woodcut print"),
)  # fmt: skip

STYLES: dict[str, Style] = {style.name: style for style in _ALL}
"""Every style by its name."""

PHOTO = Style(
    "photo",
    np.copy,
    ("{subject}", "a photo of {subject}", "{subject}, photograph", "a portrait photo of {subject}"),
)
"""The picture as it is."""
