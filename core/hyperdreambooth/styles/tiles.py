"""Cutting a picture into cells: the tiles of a mosaic and the pieces of a stained-glass window.

The cells do not depend on the picture. They are the Voronoi cells of a jittered grid from a fixed seed, computed once
for each picture size; a joint is where two cells are about equally near.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from core.hyperdreambooth.styles.filters import REFERENCE_SIZE, Planes


@dataclass(frozen=True, slots=True)
class Cells:
    """How a picture is cut."""

    order: NDArray[np.intp]
    """[h * w]: the pixels sorted by cell."""

    starts: NDArray[np.intp]
    """[cells]: where each cell begins in `order`."""

    labels: NDArray[np.intp]
    """[h * w]: the cell of each pixel."""

    joint: Planes
    """[1, 1, h, w]: 1 on a joint, 0 inside a cell."""

    def means(self, planes: Planes) -> Planes:
        """Every pixel replaced by the mean of its cell; [n, c, h, w] in and out."""
        flat = planes.reshape(*planes.shape[:2], -1)
        sums = np.add.reduceat(flat[:, :, self.order], self.starts, axis=2)
        counts = np.diff(np.append(self.starts, self.order.size)).astype(np.float32)
        return np.asarray((sums / counts)[:, :, self.labels].reshape(planes.shape))


@lru_cache(maxsize=16)
def cells(height: int, width: int, pitch: float, jitter: float, joint: float, seed: int) -> Cells:
    """Cut a picture into cells about `pitch` wide, with joints about `joint` wide, both in reference pixels.

    Jitter 0 is a square grid; with 1 a cell's centre may lie anywhere in its square.
    """
    scale = min(height, width) / REFERENCE_SIZE
    rows, columns = (max(1, round(side / scale / pitch)) for side in (height, width))
    moved = np.random.default_rng(seed).uniform(-jitter / 2, jitter / 2, (2, rows, columns))
    centres = (np.mgrid[:rows, :columns] + 0.5 + moved) * np.array([height / rows, width / columns]).reshape(2, 1, 1)
    points = np.mgrid[:height, :width].reshape(2, -1) + 0.5
    owner, near, far = _two_nearest(points, centres, height, width)
    _, labels = np.unique(owner, return_inverse=True)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    line = np.clip(1.5 - (far - near) / (joint * scale), 0, 1)
    return Cells(order, starts, labels, line.reshape(1, 1, height, width).astype(np.float32))


def _two_nearest(
    points: NDArray[np.floating], centres: NDArray[np.floating], height: int, width: int
) -> tuple[NDArray[np.intp], NDArray[np.floating], NDArray[np.floating]]:
    """For points [2, p]: the nearest centre's number, and the distances to the nearest and the second nearest.

    Centres [2, rows, columns] lie each in their own square of a grid, so only the squares around a point are searched.
    """
    _, rows, columns = centres.shape
    row, column = (points[0] * rows / height).astype(np.intp), (points[1] * columns / width).astype(np.intp)
    distances, numbers = [], []
    for down, right in product(range(-2, 3), repeat=2):
        r, c = row + down, column + right
        inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
        r, c = r.clip(0, rows - 1), c.clip(0, columns - 1)
        apart = np.hypot(points[0] - centres[0, r, c], points[1] - centres[1, r, c])
        distances.append(np.where(inside, apart, np.inf))
        numbers.append(r * columns + c)
    ranked = np.argsort(distances, axis=0, kind="stable")[:2]
    near, far = np.take_along_axis(np.stack(distances), ranked, axis=0)
    return np.take_along_axis(np.stack(numbers), ranked[:1], axis=0)[0], near, far
