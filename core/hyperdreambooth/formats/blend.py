"""Blend several subjects: a weighted sum of their changes, factored again at a low rank.

Factors cannot be averaged themselves: the mean of products is not the product of means. The sum of the changes is exact
as side-by-side factors, ``[c1 A1, c2 A2] [B1; B2]``, of the ranks' sum; a truncated singular value decomposition gives
the closest change of the wanted rank. It works on the thin factors, so that no full matrix is ever made, and in the
basis, whose orthonormal matrices keep distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe, unpack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import Factors, LayerFactors, truncate


def blend(
    weights: Sequence[LidbWeights], shares: Sequence[float], bundle: Bundle, *, rank: int | None = None
) -> LidbWeights:
    """``sum(c_i dW_i)`` as weights of one (mixed) subject; ``rank`` defaults to the highest of them.

    Class noun, step and precision are those of the first.

    Raises:
        ValueError: nothing to blend, or not one share for each.
        WeightsMismatch: weights that do not fit the bundle.
    """
    if not weights or len(weights) != len(shares):
        raise ValueError("a blend needs one share for each of one or more weights")
    first = weights[0].metadata
    subjects = [unpack(each, bundle) for each in weights]
    wanted = rank or max(each.metadata.rank for each in weights)
    mixed = {name: truncate(_sum(subjects, shares, name), wanted) for name in subjects[0]}
    return describe(bundle, mixed, class_noun=first.class_noun, kept_step=first.kept_step, precision=first.precision)


def _sum(subjects: Sequence[LayerFactors], shares: Sequence[float], name: str) -> Factors:
    return Factors(
        torch.cat([factors[name].left * share for factors, share in zip(subjects, shares, strict=True)], dim=1),
        torch.cat([factors[name].right for factors in subjects], dim=0),
    )
