"""Mix several people: a weighted sum of their changes, factored anew to a low rank.

Factors cannot be averaged themselves: the mean of products is not the product of means. The sum of the changes is exact
as side-by-side factors, ``[c1 A1, c2 A2] [B1; B2]``, of the ranks' sum; a truncated singular value decomposition gives
the closest change of the rank that is wanted. It works on the thin factors, so that no full matrix is ever made, and in
the basis, whose orthonormal matrices keep distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe, unpack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import Factors, Person, truncate


def blend(
    weights: Sequence[LidbWeights], coefficients: Sequence[float], bundle: Bundle, *, rank: int | None = None
) -> LidbWeights:
    """``sum(c_i dW_i)`` as weights of one (mixed) person; ``rank`` defaults to the highest of them.

    Description and precision are those of the first.

    Raises:
        ValueError: nothing to blend, not one coefficient for each, or in-basis weights together with full LoRAs.
        WeightsMismatch: weights that do not fit the bundle.
    """
    if not weights or len(weights) != len(coefficients):
        raise ValueError("a blend needs one coefficient for each of one or more weights")
    first = weights[0].metadata
    if {other.metadata.kind for other in weights} != {first.kind}:
        raise ValueError("weights inside the basis and full LoRAs cannot be blended")
    people = [unpack(each, bundle) for each in weights]
    wanted = rank or max(each.metadata.rank for each in weights)
    mixed = {name: truncate(_sum(people, coefficients, name), wanted) for name in people[0]}
    return describe(
        bundle,
        mixed,
        kind=first.kind,
        class_noun=first.class_noun,
        kept_step=first.kept_step,
        precision=first.precision,
    )


def _sum(people: Sequence[Person], coefficients: Sequence[float], name: str) -> Factors:
    return Factors(
        torch.cat([person[name].left * c for person, c in zip(people, coefficients, strict=True)], dim=1),
        torch.cat([person[name].right for person in people], dim=0),
    )
