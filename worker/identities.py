"""What recognisers see in the photos of a subject, kept beside its weights: how alike a picture is follows from it.

It is erased with the weights, and says nothing but numbers. Equal photos give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

NAME = "identity.json"
"""Its name beside the weights."""

Embeddings = Mapping[str, Float[np.ndarray, "n e"]]
"""Unit vectors of pictures, by the name of each recogniser."""


def to_bytes(photos: Embeddings) -> bytes:
    """The means over the photos."""
    means = {name: [round(float(each), 5) for each in vectors.mean(axis=0)] for name, vectors in photos.items()}
    return json.dumps(means).encode()


def likenesses(identity: bytes, pictures: Embeddings) -> list[float | None]:
    """The mean cosine of each picture with the photos, over the recognisers that knew both; None without one."""
    means = {name: np.array(mean) for name, mean in json.loads(identity).items() if name in pictures}
    if not means:
        return [None] * max((len(vectors) for vectors in pictures.values()), default=0)
    cosines = np.mean([pictures[name] @ mean for name, mean in means.items()], axis=0)
    return [round(float(np.clip(cosine, -1, 1)), 4) for cosine in cosines]


def key_beside(weights_key: str) -> str:
    """Where the identity is that belongs to these weights."""
    return f"{weights_key.rpartition('/')[0]}/{NAME}"
