"""Whether sunglasses or a mask cover eyes or mouth, by what dlib's recogniser sees in each place of a face.

One linear layer for each of them over the network's features. Its card says from what it learnt and how often it errs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from core.errors import BundleError
from core.hyperdreambooth.faces.tensor_file import read_tensor_file

FOLDER = Path(__file__).parents[1] / "bundles" / "face-covers"
"""The layers that ship."""


@dataclass(frozen=True, eq=False)
class Covers:
    """A linear layer for each of ``names``, which counts as covered where the logit is above 0."""

    names: tuple[str, ...]
    weight: Float[np.ndarray, "covers 8192"]
    bias: Float[np.ndarray, " covers"]

    def __call__(self, features: Float[np.ndarray, "8 8 128"]) -> tuple[str, ...]:
        """What of a face is covered, ``eyes`` or ``mouth`` or both, from `Appearance.features`."""
        logits = self.weight @ features.reshape(-1) + self.bias
        return tuple(name for name, logit in zip(self.names, logits, strict=True) if logit > 0)


@cache
def load_covers(folder: Path = FOLDER) -> Covers:
    """The layers in a folder. Raises BundleError when they cannot be read."""
    file = read_tensor_file(folder / "model.safetensors")
    try:
        names = tuple(str(name) for name in json.loads(file.metadata["covers"]))
        return Covers(names, file.tensors["weight"], file.tensors["bias"])
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(f"the covers in {folder} cannot be read: {error!r}") from error
