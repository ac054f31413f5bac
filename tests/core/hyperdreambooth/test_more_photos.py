"""More photos of a subject: learnt at once, or gone on to from the weights that are there."""

from dataclasses import replace

import pytest
import torch

from core.errors import WeightsMismatch
from core.hyperdreambooth.finetune import PROMPT
from core.hyperdreambooth.formats.lidb_weights import from_bytes, merged_factors, to_bytes, unpack
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions
from core.lab.testing import TINY, random_bundle

LEARNING = replace(TINY, finetune=replace(TINY.finetune, steps=60, steps_from_zero=60, rows=4, learning_rate=0.03))


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(with_hypernetwork=False, config=LEARNING)


def photos(*seeds, side=16):
    """A few pictures that are flat and of one colour each, which is quickly learnt."""
    colours = torch.tensor([[40 * seed, 255 - 50 * seed, 120] for seed in seeds], dtype=torch.uint8)
    return colours[:, None, None].expand(-1, side, side, -1).contiguous()


def loss(bundle, weights, pictures):
    """How badly the person's weights explain the pictures."""
    latents = encode_pictures(bundle, pictures).repeat(8, 1, 1, 1)
    tokens = tokenize(bundle, [PROMPT.format(noun=bundle.class_noun)]).expand(len(latents), -1)
    person = merged_factors(weights, bundle) if weights is not None else {}
    with torch.no_grad():
        each = denoising_loss(bundle, latents, tokens, person, generator=torch.Generator().manual_seed(9))
    return float(each.mean())


def test_going_on_with_more_photos_explains_them_better_than_before_and_than_as_few_steps_anew(bundle):
    first = personalize(bundle, photos(1)).weights
    going_on = personalize(bundle, photos(2, 3), PersonalizeOptions(start=first, steps=20)).weights
    anew = personalize(bundle, photos(2, 3), PersonalizeOptions(steps=20)).weights
    new = photos(2, 3)
    assert loss(bundle, first, photos(1)) < loss(bundle, None, photos(1))
    assert loss(bundle, going_on, new) < loss(bundle, first, new)
    assert loss(bundle, going_on, new) < loss(bundle, anew, new)
    assert loss(bundle, going_on, photos(1)) < loss(bundle, None, photos(1)), "the first photo is not forgotten"


def test_no_steps_change_nothing_but_the_last_rounding(bundle):
    first = personalize(bundle, photos(1)).weights
    still = replace(bundle, config=replace(LEARNING, finetune=replace(LEARNING.finetune, learning_rate=0.0)))
    same = personalize(still, photos(2), PersonalizeOptions(start=first, steps=1)).weights
    for name, factors in unpack(first, bundle).items():
        torch.testing.assert_close(unpack(same, still)[name].delta(), factors.delta(), atol=1e-3, rtol=2e-2)


def test_a_bundle_may_show_the_prediction_and_finetune_from_zero(bundle):
    apart = replace(LEARNING, finetune=replace(LEARNING.finetune, steps=4, steps_from_zero=9, from_prediction=False))
    predicting, previews = random_bundle(config=apart), []
    made = personalize(predicting, photos(1), PersonalizeOptions(rank=1), on_preview=previews.append)
    assert [weights.metadata.kept_step for weights in previews] == [0, 3], "the prediction, then a third of the steps"
    assert made.preview is previews[1]
    assert made.weights.metadata.rank == 1, "it need not have the prediction's rank"
    assert made.kept_step == 9
    without = replace(bundle, config=apart)
    assert to_bytes(made.weights) == to_bytes(personalize(without, photos(1), PersonalizeOptions(rank=1)).weights)


def test_a_start_is_not_predicted_and_takes_the_steps_of_one(bundle):
    first = personalize(bundle, photos(1), PersonalizeOptions(rank=5, steps=2)).weights
    few = replace(LEARNING, finetune=replace(LEARNING.finetune, rank=2, steps=3))
    predicting = random_bundle(config=few)
    seen, previews = [], []
    made = personalize(
        predicting,
        photos(2),
        PersonalizeOptions(start=from_bytes(to_bytes(first))),
        on_progress=lambda *step: seen.append(step),
        on_preview=previews.append,
    )
    assert (made.kept_step, made.preview, previews) == (3, None, [])
    assert made.weights.metadata.rank == 5, "a start keeps its rank where the bundle's is lower"
    assert {stage for stage, _, _ in seen} == {"finetune", "likeness"}


def test_the_same_start_and_photos_give_the_same_weights(bundle):
    first = personalize(bundle, photos(1), PersonalizeOptions(steps=3)).weights
    options = PersonalizeOptions(start=first, steps=3)
    again = [to_bytes(personalize(bundle, photos(2, 3), options).weights) for _ in range(2)]
    assert again[0] == again[1]


def test_a_start_of_another_bundle_is_refused(bundle):
    first = personalize(bundle, photos(1), PersonalizeOptions(steps=2)).weights
    foreign = replace(first, metadata=replace(first.metadata, fingerprint="another"))
    with pytest.raises(WeightsMismatch, match="another"):
        personalize(bundle, photos(2), PersonalizeOptions(start=foreign))


@pytest.mark.parametrize(("several", "steps"), [(1, 4), (2, 6), (3, 8), (9, 8)])
def test_more_photos_take_more_steps_up_to_twice_as_many(several, steps):
    few = random_bundle(
        with_hypernetwork=False, config=replace(TINY, finetune=replace(TINY.finetune, steps_from_zero=4))
    )
    assert personalize(few, photos(*[1] * several)).kept_step == steps


def test_going_on_takes_more_steps_for_more_photos_too_and_a_caller_who_says_how_many_gets_them(bundle):
    first = personalize(bundle, photos(1), PersonalizeOptions(steps=2)).weights
    few = replace(bundle, config=replace(LEARNING, finetune=replace(LEARNING.finetune, steps=2)))
    assert personalize(few, photos(2, 3), PersonalizeOptions(start=first)).kept_step == 3
    assert personalize(few, photos(2, 3), PersonalizeOptions(start=first, steps=5)).kept_step == 5
