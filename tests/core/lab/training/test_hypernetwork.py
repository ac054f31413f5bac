"""What the hypernetwork learns from a teacher: who the rows show."""

from dataclasses import replace

import pytest
import torch

from core.errors import BundleError
from core.hyperdreambooth.model.config import LinearHyperNetworkConfig
from core.hyperdreambooth.model.hypernetwork import new_hypernetwork
from core.hyperdreambooth.model.prompts import tokenize
from core.lab.testing import random_bundle
from core.lab.training.hypernetwork import hypernetwork_losses
from core.lab.training.loop import Optimization
from core.lab.training.recipe import HyperNetworkTraining
from core.lab.training.rows import Rows
from core.lab.training.teacher import FaceTeacher

NUMBERS = 5
TRAINING = HyperNetworkTraining(Optimization(1, 4, 1e-3), beta=0.0, identity=0.0, taught=0.5, taught_rows=2)


class Teacher(FaceTeacher):
    """Whatever is made, it sees the mean of its pixels; it keeps how many pictures it saw."""

    seen = 0

    def __init__(self):
        torch.nn.Module.__init__(self)

    def forward(self, pixels):
        self.seen = len(pixels)
        return pixels.mean((1, 2, 3))[:, None].expand(-1, NUMBERS), []


@pytest.fixture
def bundle():
    return random_bundle(with_hypernetwork=False)


@pytest.fixture
def network(bundle):
    config = LinearHyperNetworkConfig(eigenfaces=0, face_eigenfaces=0, width=3, rank=1, embedding=NUMBERS)
    return new_hypernetwork(config, bundle.shapes)


def rows(bundle, plain):
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    people = len(plain)
    return Rows(
        latents,
        tokenize(bundle, ["a sks face"] * 4),
        torch.ones(people, NUMBERS),
        torch.zeros(people, dtype=torch.int64),
        torch.arange(people),
        torch.tensor(plain),
    )


def losses(bundle, network, drawn, config, teacher):
    generator = torch.Generator().manual_seed(2)
    return hypernetwork_losses(bundle, network, drawn, {}, config, generator, teacher=teacher)


@pytest.mark.parametrize(("plain", "seen"), [([True, True, True], 2), ([False, True, False], 1), ([False], 0)])
def test_a_teacher_sees_the_first_photos_and_none_in_a_style(bundle, network, plain, seen):
    teacher = Teacher()
    found = losses(bundle, network, rows(bundle, plain), TRAINING, teacher)
    assert teacher.seen == seen
    without = losses(bundle, network, rows(bundle, plain), replace(TRAINING, taught=0.0), teacher)
    assert found["loss"].item() == pytest.approx((without["loss"] + 0.5 * found["taught"]).item(), rel=1e-4)


def test_the_network_learns_what_the_teacher_says(bundle, network):
    found = losses(bundle, network, rows(bundle, [True] * 3), replace(TRAINING, taught=1.0), Teacher())
    found["taught"].backward()
    assert all(head.grad is not None and head.grad.any() for head in network.head)


def test_without_a_teacher_nothing_is_taught(bundle, network):
    with pytest.raises(BundleError, match=r"data\.teacher"):
        losses(bundle, network, rows(bundle, [True]), TRAINING, None)
    assert not losses(bundle, network, rows(bundle, [True]), replace(TRAINING, taught=0.0), None)["taught"].any()
