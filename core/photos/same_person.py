"""Whether several photos show one person, and which of them does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from core.hyperdreambooth.faces.dlib_recogniser import DIFFERENT, SAME, Appearance, distance

COVERED = 0.08
"""What is added to both distances where one of two photos shows a covered face: eyes or mouth are missing."""


@dataclass(frozen=True)
class Comparison:
    """The numbers of the photos that show another person, and of those that may."""

    others: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()


def compare(appearances: Sequence[Appearance | None], covered: Sequence[bool], known: int = 0) -> Comparison:
    """Each photo against those of the person whom most photos show; of two photos the first one counts.

    The first ``known`` photos are of the person: with any of these the others are not asked.

    A photo shows another person when it is farther than `DIFFERENT` from every photo of that person, and may do so when
    it is farther than `SAME`. None stands for a photo without a usable face, which is left out.
    """
    seen = [number for number, appearance in enumerate(appearances) if appearance is not None]
    if len(seen) < 2:
        return Comparison()
    apart = _distances([a for a in appearances if a is not None], [covered[number] for number in seen])
    numbers = np.array(seen)
    first = numbers < known if seen[0] < known else numbers == numbers[apart.sum(1).argmin()]
    same = _reached(apart, first)
    nearest = np.where(same, apart + np.diag(np.full(len(seen), np.inf)), np.inf).min(1)
    unsure = same & (nearest > SAME) & ~first
    return Comparison(
        tuple(number for number, fits in zip(seen, same, strict=True) if not fits),
        tuple(number for number, doubtful in zip(seen, unsure, strict=True) if doubtful),
    )


def _distances(appearances: list[Appearance], covered: list[bool]) -> Float[np.ndarray, "n n"]:
    """Between all, less what covers add."""
    apart = np.array([[distance(one, other) for other in appearances] for one in appearances])
    less: Float[np.ndarray, "n n"] = np.maximum(apart - COVERED * np.logical_or.outer(covered, covered), 0)
    return less


def _reached(apart: Float[np.ndarray, "n n"], first: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which can be reached from the first ones in steps of at most `DIFFERENT`."""
    same = first
    for _ in apart:
        same = same | (apart[:, same] <= DIFFERENT).any(1)
    return same
