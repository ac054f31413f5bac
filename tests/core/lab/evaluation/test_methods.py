"""Every row of the tables on a tiny random bundle: what changes, what does not, and what it takes on a disk."""

from dataclasses import replace

import pytest
import torch

from core.hyperdreambooth.model.config import LinearHyperNetworkConfig
from core.hyperdreambooth.model.hypernetwork import new_hypernetwork
from core.hyperdreambooth.model.prompts import tokenize
from core.lab.evaluation.baselines import dreambooth, textual_inversion
from core.lab.evaluation.methods import METHODS, photo_latents, starting_point, with_finetuning
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


ELSEWHERE = ("lora-dreambooth", "gaussian-basis")
"""One takes its 400 steps whatever the bundle says, and is the path of "full-lora"; the other is in test_ablations."""


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].batched and name not in ELSEWHERE])
def test_a_method_leaves_one_result_for_each_person(bundle, people, name):
    before = {key: value.clone() for key, value in bundle.unet.state_dict().items()}
    quick = with_finetuning(bundle, steps=1, steps_from_zero=1)
    results = METHODS[name].run(quick, people(2), 0, None if not METHODS[name].rates else 1e-3)
    assert len(results) == 2
    assert all(torch.equal(value, before[key]) for key, value in bundle.unet.state_dict().items())


def test_the_stored_size_follows_the_precision_and_the_relaxation(bundle, people):
    sizes = {
        name: METHODS[name].run(bundle, people(1), 0, None)[0].stored_bytes
        for name in ("hyperdreambooth", "fp32", "full-lora", "not-personalized")
    }
    assert 0 == sizes["not-personalized"] < sizes["hyperdreambooth"] < sizes["fp32"] < sizes["full-lora"]


@pytest.mark.parametrize("name", ["hypernetwork-only", "hyperdreambooth", "without-hypernetwork", "full-lora"])
def test_people_in_one_batch_are_what_each_would_be_alone(bundle, people, name):
    run, quick = METHODS[name].run, with_finetuning(bundle, steps=2, steps_from_zero=2)
    batched = run(quick, people(3), 0, None)
    alone = run(quick, people(3)[1:2], 0, None)[0]
    for target, factors in alone.factors.items():
        torch.testing.assert_close(factors.left, batched[1].factors[target].left, atol=1e-4, rtol=1e-3)


def test_finetuning_from_a_prediction_of_a_higher_rank_keeps_its_own(bundle, people):
    narrow = with_finetuning(bundle, rank=1, steps=1, steps_from_zero=1)
    made = METHODS["from-prediction"].run(narrow, people(1), 0, None)[0]
    assert {factors.left.shape[-1] for factors in made.factors.values()} == {1}


def test_rows_that_need_a_hypernetwork_say_so():
    without = random_bundle(with_hypernetwork=False)
    missing = {name for name, method in METHODS.items() if method.missing(without)}
    assert missing == {"hypernetwork-only", "without-hypernetwork", "from-prediction", "one-iteration"}


@pytest.mark.parametrize(("predicting", "own"), [(True, "from-prediction"), (False, "without-hypernetwork")])
def test_the_bundles_own_row_is_not_measured_twice(bundle, predicting, own):
    starting = with_finetuning(bundle, from_prediction=predicting)
    missing = [name for name, method in METHODS.items() if method.missing(starting)]
    assert missing == ([own, "gaussian-basis"] if predicting else [own])


def test_a_linear_hypernetwork_has_no_row_with_fewer_iterations():
    bundle = random_bundle()
    assert bundle.hypernetwork is not None
    small = LinearHyperNetworkConfig(resolution=16, eigenfaces=2, face_eigenfaces=2, width=2, rank=1)
    linear = replace(bundle, hypernetwork=new_hypernetwork(small, bundle.hypernetwork.shapes))
    assert {name for name, method in METHODS.items() if method.missing(linear)} == {
        "from-prediction",
        "gaussian-basis",
        "one-iteration",
    }


def test_one_iteration_is_another_start_than_two(bundle, people):
    one, two = (starting_point(bundle, people(1), seed=0, iterations=k) for k in (1, 2))
    assert any(not torch.equal(one[name].left, two[name].left) for name in one)


def test_dreambooth_changes_a_copy(bundle, people):
    before = bundle.fingerprint
    changed, size = dreambooth(bundle, photo_latents(bundle, people(1)), 0, 1e-3, steps=2)
    assert changed.fingerprint != before
    assert random_bundle().fingerprint == before
    assert size > 1000
    assert not any(p.requires_grad for p in changed.unet.parameters())


def test_textual_inversion_changes_one_embedding_of_a_copy(bundle, people):
    single = random_bundle(config=type(bundle.config)(**{**bundle.config.__dict__, "identifier": "s"}))
    changed, size = textual_inversion(single, photo_latents(single, people(1)), 0, 1e-2, steps=2)
    old, new = (b.text_encoder.get_input_embeddings().weight for b in (single, changed))
    different = (old != new).any(dim=1).nonzero().flatten().tolist()
    assert different == [int(tokenize(single, ["s"])[0, 1])]
    assert size == old.shape[1] * 4
