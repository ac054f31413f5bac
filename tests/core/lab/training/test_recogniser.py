"""The recogniser's stage learns to tell drawn people apart: patterns that differ, in pictures that differ."""

import numpy as np
import pytest
import torch

from core.lab.training.data import Faces
from core.lab.training.loop import Optimization, TrainingLoop
from core.lab.training.recipe import Recogniser
from core.lab.training.recogniser import (
    area_under_roc,
    discriminants,
    fresh_identities,
    recogniser_losses,
    settle,
    with_verification,
)

CONFIG = Recogniser(Optimization(steps=40, batch=12, learning_rate=3e-3, warmup=5, ema=0.5), channels=(8, 16))


def people(*seeds):
    """Four noisy pictures of each: a few coloured patches that are the person's own. And one of somebody else."""
    rng = np.random.default_rng(0)
    pictures, identities = [], []
    for seed in seeds:
        patches = np.random.default_rng(seed).integers(40, 216, (4, 4, 3)).repeat(16, 0).repeat(16, 1)
        for _ in range(4):
            pictures.append((patches + rng.normal(0, 12, (64, 64, 3))).clip(0, 255).astype(np.uint8))
            identities.append(str(seed))
    pictures.append(np.zeros((64, 64, 3), np.uint8))
    return Faces(np.stack(pictures), (*identities, "nobody"), ((),) * len(pictures))


def test_after_training_people_it_never_saw_are_told_apart(tmp_path):
    known, unseen = people(*range(6)), people(*range(100, 108))
    identities = fresh_identities(CONFIG.channels, 6, seed=0)
    loop = TrainingLoop(tmp_path, {"identities": identities}, CONFIG.optimization, seed=0, name="recogniser")
    loop.run(lambda generator: recogniser_losses(identities, known, CONFIG, ("pencil sketch",), generator))
    loop.use_average()
    recogniser = identities.recogniser.eval().requires_grad_(False)
    settle(recogniser, known, ("pencil sketch",))
    config = with_verification(recogniser, unseen)
    assert config.auc > 0.8
    assert 0 <= config.accepted <= 1
    assert config.threshold < 1


def test_a_step_depends_on_its_generator_alone():
    known = people(1, 2)
    identities = fresh_identities(CONFIG.channels, 2, seed=0)
    first, second = (
        recogniser_losses(identities, known, CONFIG, ("pencil sketch",), torch.Generator().manual_seed(3))["loss"]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_discriminants_look_where_people_differ_and_not_where_their_pictures_do():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 10)
    features = np.stack([rng.normal(size=20)[people], 2 * rng.normal(size=200)], axis=1).astype(np.float32)
    features[:, 0] += rng.normal(0, 0.1, 200) + 7
    directions, bias = discriminants(features, people)
    seen = features @ directions + bias
    spread = np.array([seen[people == person, 0].std() for person in range(20)]).mean()
    assert spread < 0.3 * seen[:, 0].std()
    assert abs(seen[:, 0].mean()) < 0.3 * seen[:, 0].std(), "what all have in common is taken off"


def test_the_area_under_the_curve():
    same, other = np.array([0.9, 0.4]), np.array([0.5, 0.1])
    assert area_under_roc(same, other) == pytest.approx(0.75)
    assert area_under_roc(other + 1, other) == 1
