"""What is compared with the method: bases that are not orthonormal, factors outside of any."""

import pytest
import torch

from core.hyperdreambooth.finetune import TrainingLatents
from core.hyperdreambooth.model.config import FinetuneConfig, LidbConfig
from core.hyperdreambooth.model.lidb import Basis
from core.hyperdreambooth.model.target import Target
from core.lab.evaluation.ablations import GaussianBasis, finetune_full_lora, with_gaussian_basis
from core.lab.evaluation.methods import METHODS
from core.lab.testing import random_bundle

TARGETS = (Target("unet.wide", 120, 90), Target("unet.narrow", 8, 6))


def test_gaussian_bases_have_about_unit_columns_and_another_hash():
    config = LidbConfig(seed=1)
    gaussian = GaussianBasis(TARGETS, config)
    assert gaussian["unet.wide"].left.norm(dim=0).mean() == pytest.approx(1.0, abs=0.05)
    assert gaussian.hash != Basis(TARGETS, config).hash


def test_a_bundle_is_personalized_in_a_gaussian_basis(people):
    bundle = random_bundle(with_hypernetwork=False)
    made = METHODS["gaussian-basis"].run(bundle, people(2), 0, None)
    assert [each.bundle.basis.hash for each in made] == [with_gaussian_basis(bundle).basis.hash] * 2
    assert with_gaussian_basis(bundle).basis.hash == "487d6700663a607b"


def test_a_full_lora_leaves_the_basis_and_is_stored_in_halves():
    bundle = random_bundle(with_hypernetwork=False)
    generator = torch.Generator().manual_seed(0)
    pictures = TrainingLatents(torch.randn(1, 1, 4, 8, 8, generator=generator), torch.empty(1, 0, 4, 8, 8))
    start = bundle.basis.zeros(1, generator=generator, batch=(1,))
    config = FinetuneConfig(rank=3, steps=2, rows=2)
    ((factors, stored),) = finetune_full_lora(bundle, pictures, start, config, generator)
    for target in bundle.targets:
        assert factors[target.name].left.shape == (target.n, 3)
        assert factors[target.name].right.shape == (3, target.m)
        assert torch.equal(factors[target.name].left, factors[target.name].left.half().float())
    assert stored > 2 * sum(3 * (target.n + target.m) for target in bundle.targets)
