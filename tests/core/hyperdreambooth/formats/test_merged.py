import time

import pytest
import torch

from core.errors import WeightsMismatch
from core.hyperdreambooth.formats.lidb_weights import describe, from_bytes, merged_factors, to_bytes
from core.hyperdreambooth.formats.merged import MergedFactors
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(with_hypernetwork=False)


@pytest.fixture(scope="module")
def people(bundle):
    return [
        describe(
            bundle,
            bundle.basis.zeros(1, generator=torch.Generator().manual_seed(seed)),
            class_noun="face",
            kept_step=1,
        )
        for seed in range(3)
    ]


def test_the_same_weights_are_multiplied_out_once(bundle, people):
    merged = MergedFactors()
    first = merged(people[0], bundle)
    assert merged(from_bytes(to_bytes(people[0])), bundle) is first, "by what they are, whoever opened them"
    assert merged(people[1], bundle) is not first
    for name, pair in merged_factors(people[0], bundle).items():
        assert torch.equal(pair.right, first[name].right)


def test_the_least_recently_used_go_first(bundle, people):
    merged = MergedFactors(most=2)
    first, second = (merged(people[number], bundle) for number in (0, 1))
    assert merged(people[0], bundle) is first
    merged(people[2], bundle)
    assert len(merged) == 2
    assert merged(people[0], bundle) is first
    assert merged(people[1], bundle) is not second


def test_what_is_not_used_is_forgotten_by_itself(bundle, people):
    merged = MergedFactors(seconds=0.05)
    for person in people:
        merged(person, bundle)
    until = time.monotonic() + 30
    while len(merged):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_weights_of_another_model_are_refused_each_time(bundle, people):
    merged, other = MergedFactors(), bundle.configured(bundle.config.changed("lidb.seed", 1))
    merged(people[0], bundle)
    for _ in range(2):
        with pytest.raises(WeightsMismatch):
            merged(people[0], other)
    assert len(merged) == 1
