from dataclasses import replace

import pytest
import torch

from core.errors import WeightsMismatch
from core.hyperdreambooth.formats.blend import blend
from core.hyperdreambooth.formats.lidb_weights import describe, unpack
from core.hyperdreambooth.model.lidb import Factors
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(with_hypernetwork=False)


def weights_of(bundle, seed, rank=2, precision="fp32"):
    generator = torch.Generator().manual_seed(seed)
    lidb = bundle.config.lidb
    factors = {}
    for target in bundle.targets:
        a, b = target.capped(lidb.a, lidb.b)
        factors[target.name] = Factors(
            torch.randn(a, rank, generator=generator), torch.randn(rank, b, generator=generator)
        )
    return describe(bundle, factors, class_noun="face", kept_step=seed, precision=precision)


def deltas(weights, bundle):
    return torch.cat([factors.delta().flatten() for factors in unpack(weights, bundle).values()])


def test_a_blend_of_enough_rank_is_the_weighted_sum(bundle):
    one, other = weights_of(bundle, 1), weights_of(bundle, 2)
    mixed = blend([one, other], [0.7, 0.3], bundle, rank=4)
    assert mixed.metadata.rank == 4
    expected = 0.7 * deltas(one, bundle) + 0.3 * deltas(other, bundle)
    torch.testing.assert_close(deltas(mixed, bundle), expected, atol=1e-5, rtol=1e-4)


def test_a_blend_of_one_is_that_one(bundle):
    one = weights_of(bundle, 1)
    torch.testing.assert_close(deltas(blend([one], [1.0], bundle), bundle), deltas(one, bundle), atol=1e-5, rtol=1e-4)


def test_a_blend_keeps_the_highest_rank_and_is_nearer_than_averaged_factors(bundle):
    one, other = weights_of(bundle, 1, rank=3), weights_of(bundle, 2)
    mixed = blend([one, other], [0.5, 0.5], bundle)
    assert mixed.metadata.rank == 3
    expected = (deltas(one, bundle) + deltas(other, bundle)) / 2
    assert (deltas(mixed, bundle) - expected).norm() < 0.75 * expected.norm()


def test_what_cannot_be_blended_is_refused(bundle):
    one = weights_of(bundle, 1)
    with pytest.raises(ValueError, match="share"):
        blend([one], [0.5, 0.5], bundle)
    with pytest.raises(ValueError, match="share"):
        blend([], [], bundle)
    foreign = replace(one, metadata=replace(one.metadata, fingerprint="another"))
    with pytest.raises(WeightsMismatch):
        blend([one, foreign], [0.5, 0.5], bundle)
