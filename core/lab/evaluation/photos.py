"""How photos are checked: ``python -m core.lab.evaluation.photos --faces EVAL.parquet``.

Prints two tables in Markdown: how well the recogniser tells people apart by all pairs of photos, and what becomes of
photos of so many people as they are, cut, covered, badly lit and with others in them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from core.hyperdreambooth.faces.dlib_recogniser import DIFFERENT, SAME, load_dlib_recogniser
from core.lab.training.cover_drawings import SHAPES, draw_mask, draw_sunglasses
from core.lab.training.data import Faces, load_faces
from core.photos.check import check_photo
from core.photos.records import PhotoCheck, compare_photos

SIDE = 384
"""Pixels of the photos that are checked."""

Photos = Sequence[Image.Image]
Case = tuple[str, Callable[[Photos, int, np.random.Generator], Image.Image]]

CASES: tuple[Case, ...] = (
    ("as it is", lambda photos, n, _: photos[n]),
    ("right side cut off at 0.60", lambda photos, n, _: _cropped(photos[n], (0.0, 0.0, 0.6, 1.0))),
    ("left side cut off at 0.40", lambda photos, n, _: _cropped(photos[n], (0.4, 0.0, 1.0, 1.0))),
    ("cut off above the mouth", lambda photos, n, _: _cropped(photos[n], (0.0, 0.0, 1.0, 0.68))),
    ("tight: forehead to chin", lambda photos, n, _: _cropped(photos[n], (0.22, 0.25, 0.78, 0.86))),
    ("sunglasses drawn on it", lambda photos, n, random: draw_sunglasses(photos[n], n % SHAPES, random)),
    ("a mask drawn on it", lambda photos, n, random: draw_mask(photos[n], n % SHAPES, random)),
    ("two people side by side", lambda photos, n, _: _beside(photos[n], photos[n - 1])),
    (
        "another person half as large, blurred, behind",
        lambda photos, n, _: _behind(photos[n], photos[n - 1], 0.55, 3.0),
    ),
    (
        "another person two thirds as large, sharp, behind",
        lambda photos, n, _: _behind(photos[n], photos[n - 1], 0.66, 0.0),
    ),
    ("a sixth of the light", lambda photos, n, _: photos[n].point(lambda value: value / 6)),
    ("out of focus", lambda photos, n, _: photos[n].filter(ImageFilter.GaussianBlur(SIDE / 32))),
)
"""Names of photos to make, and how, from everybody's photos and the number of one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation.photos", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="parquet with columns image, identity, attributes")
    parser.add_argument("--people", type=int, default=100, help="with two photos or more (default: 100)")
    parser.add_argument("--photos", type=int, default=6, help="of each person, for the pairs (default: 6)")
    args = parser.parse_args(arguments)
    faces = load_faces([args.faces], 128).of_first(args.people)
    print("\n".join(recognition(faces, args.photos)))  # noqa: T201  (a report is what it is for)
    for line in checks(faces, np.random.default_rng(0)):
        print(line, flush=True)  # noqa: T201


def recognition(faces: Faces, photos: int) -> list[str]:
    """The table of pairs: of one person and of two."""
    chosen = [number for numbers in faces.by_identity.values() for number in numbers[:photos]]
    recogniser, begun = load_dlib_recogniser(), time.perf_counter()
    embeddings = np.stack([recogniser(Image.fromarray(faces.pictures[number])).embedding for number in chosen])
    milliseconds = (time.perf_counter() - begun) / len(chosen) * 1000
    one, two = np.triu_indices(len(chosen), 1)
    apart = np.linalg.norm(embeddings[one] - embeddings[two], axis=1)
    same = faces.labels[chosen][one] == faces.labels[chosen][two]
    columns = {
        "photos": len(chosen),
        "pairs of one person / of two": f"{same.sum()} / {(~same).sum()}",
        "AUC": f"{area(apart[same], apart[~same]):.4f}",
        "mean distance": f"{apart[same].mean():.3f} / {apart[~same].mean():.3f}",
        f"farther than {SAME} / nearer": f"{(apart[same] > SAME).mean():.2%} / {(apart[~same] <= SAME).mean():.2%}",
        f"than {DIFFERENT}": f"{(apart[same] > DIFFERENT).mean():.2%} / {(apart[~same] <= DIFFERENT).mean():.2%}",
        "ms a face": f"{milliseconds:.0f}",
    }
    rows = list(columns), ["---"] * len(columns), list(map(str, columns.values()))
    return [f"| {' | '.join(row)} |" for row in rows]


def area(smaller: Float[np.ndarray, " n"], larger: Float[np.ndarray, " m"]) -> float:
    """The area under the ROC curve: how often one of the first is smaller than one of the second."""
    ordered = np.sort(larger)
    return float(1 - np.searchsorted(ordered, smaller).mean() / len(ordered))


def checks(faces: Faces, random: np.random.Generator) -> Iterator[str]:
    """The table of what becomes of photos, a line at a time: one photo of each person, and pairs of photos."""
    yield "| photo | of | accepted | warned about | refused |"
    yield "|---|---|---|---|---|"
    first, second = (_photos(faces, number) for number in (0, 1))
    found: list[PhotoCheck] = []
    for name, make in CASES:
        checked = [check_photo(make(first, number, random)) for number in range(len(first))]
        found = found or checked
        yield _line(name, checked)
    others = [check_photo(photo) for photo in second]
    for name, shift in (("two photos of one person", 0), ("photos of two people", 1)):
        pairs = zip(found, others[shift:] + others[:shift], strict=True)
        yield _line(f"{name}: the second", [compare_photos(pair)[1] for pair in pairs])


def _photos(faces: Faces, number: int) -> list[Image.Image]:
    """One photo of each person."""
    chosen = [numbers[number] for numbers in faces.by_identity.values()]
    return [Image.fromarray(faces.pictures[n]).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for n in chosen]


def _line(name: str, checked: Sequence[PhotoCheck]) -> str:
    refused = Counter(each.reasons[0].error.code for each in checked if each.reasons)
    warned = Counter(warning.code for each in checked if not each.reasons for warning in each.warnings)
    counts = [", ".join(f"{code} {count}" for code, count in each.most_common()) or "–" for each in (warned, refused)]
    return f"| {name} | {len(checked)} | {len(checked) - refused.total()} | {counts[0]} | {counts[1]} |"


def _cropped(photo: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = (round(edge * SIDE) for edge in box)
    return photo.crop((left, top, right, bottom))


def _beside(photo: Image.Image, other: Image.Image) -> Image.Image:
    both = Image.new("RGB", (2 * SIDE, SIDE))
    both.paste(photo, (0, 0))
    both.paste(other, (SIDE, 0))
    return both


def _behind(photo: Image.Image, other: Image.Image, share: float, blur: float) -> Image.Image:
    """Another person beside one, so large by comparison."""
    both = Image.new("RGB", (round(1.7 * SIDE), SIDE), (110, 120, 128))
    small = other.resize((round(share * SIDE),) * 2, Image.Resampling.LANCZOS)
    both.paste(small.filter(ImageFilter.GaussianBlur(blur)), (both.width - small.width, SIDE - small.height))
    both.paste(photo, (0, 0))
    return both


if __name__ == "__main__":
    main()
