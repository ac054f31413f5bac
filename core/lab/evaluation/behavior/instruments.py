"""How well what checks words finds them in real photos: ``python -m core.lab.evaluation instruments --faces PHOTOS``.

For each word that the photos are labelled with: the share of photos that have it in which it is found, and of those
that have not. No model is drawn with; a model's "visible when asked" can hardly be above the first of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.lab.classifier import PictureClassifier, load_classifier
from core.lab.evaluation.behavior.command import EMBEDDED
from core.lab.evaluation.behavior.visible import checked_by, visible
from core.lab.evaluation.words import ASKS, POSES
from core.lab.training.data import Faces, load_faces

FEWEST = 5
"""Photos with a word without which its share says nothing."""

MOST = 300
"""Photos with a word, and without, that are looked at."""

Found = tuple[int, float, float]
"""How many photos have the word, and in which shares of those that have it and of the others it is found."""


def main(arguments: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation instruments", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="parquet with columns image, identity, attributes")
    parser.add_argument("--bundle", type=Path, default=EMBEDDED, help="whose classifier (default: the embedded one's)")
    options = parser.parse_args(arguments)
    found = recalls(load_faces([options.faces], 128), load_classifier(options.bundle))
    print("| word | photos with it | found | in others |\n|---|---|---|---|")  # noqa: T201  # what the command is for
    for word, (count, right, wrong) in found.items():
        print(f"| {word} | {count} | {right:.2f} | {wrong:.2f} |")  # noqa: T201


def recalls(faces: Faces, classifier: PictureClassifier | None) -> dict[str, Found]:
    """By word, of those that something checks and enough photos have."""
    found = {}
    for word in dict.fromkeys([*ASKS, *POSES]):
        have = np.array([word in words for words in faces.attributes])
        if have.sum() < FEWEST or checked_by(word, classifier) is None:
            continue
        shares = [_share(word, faces.pictures[have == there], classifier) for there in (True, False)]
        found[word] = (int(have.sum()), shares[0], shares[1])
    return found


def _share(word: str, pictures: np.ndarray, classifier: PictureClassifier | None) -> float:
    """Of pictures evenly taken from all."""
    chosen = pictures[np.linspace(0, len(pictures) - 1, min(MOST, len(pictures))).astype(int)]
    return float(visible(word, chosen, classifier).mean())
