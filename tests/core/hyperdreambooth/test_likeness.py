"""Likeness by the recognisers there are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import JobCanceled
from core.hyperdreambooth.faces.recogniser import FaceRecogniser, RecogniserConfig
from core.hyperdreambooth.likeness import Recogniser, measure_likeness, recognisers_of
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import Personalized, Row
from core.lab.testing import TINY, random_bundle

PHOTO = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bundle_with(*, hypernetwork=False, **finetuning):
    config = replace(TINY, finetune=replace(TINY.finetune, **finetuning))
    return random_bundle(with_hypernetwork=hypernetwork, config=config)


def says(cosine=0.5, name="strict"):
    """A recogniser that finds this cosine: photos are unit vectors, pictures lean towards them."""
    answers = iter([1.0, cosine])

    def embed(pictures):
        found = next(answers)
        return np.tile([[found, np.sqrt(1 - found**2)]], (len(pictures), 1))

    return Recogniser(name, embed)


def test_every_recogniser_measures_and_the_mean_counts():
    bundle = bundle_with()
    row = Row("a [V] face", seed=1)
    two = [says(0.2), says(0.6, name="kind")]
    likeness = measure_likeness(bundle, PHOTO, row, two)
    assert likeness == {"strict": pytest.approx(0.2), "kind": pytest.approx(0.6)}
    assert measure_likeness(bundle, PHOTO, row, []) == {}
    assert Personalized("weights", None, likeness, 1).likeness == pytest.approx(0.4)


def test_the_hypernetworks_encoder_measures_only_where_there_is_no_recogniser():
    plain, predicting = bundle_with(), bundle_with(hypernetwork=True)
    strict = says()
    assert recognisers_of(plain) == ()
    assert [each.name for each in recognisers_of(predicting)] == ["hypernetwork"]
    assert recognisers_of(predicting, [strict]) == (strict,)
    own = replace(predicting, recogniser=FaceRecogniser(RecogniserConfig(channels=(8,), embedding=8)).eval())
    assert [each.name for each in recognisers_of(own, [strict])] == ["bundle", "strict"]


def test_a_bundles_own_recogniser_measures_what_was_made():
    own = FaceRecogniser(RecogniserConfig(channels=(8,), embedding=8)).eval().requires_grad_(False)
    made = personalize(replace(bundle_with(), recogniser=own), PHOTO)
    assert set(made.likeness_by) == {"bundle"}
    assert -1 <= made.likeness <= 1


def test_it_can_be_canceled_while_likeness_is_measured():
    seen = []
    with pytest.raises(JobCanceled):
        personalize(
            bundle_with(),
            PHOTO,
            recognisers=[says(0.1)],
            on_progress=lambda *step: seen.append(step),
            should_stop=lambda: any(stage == "likeness" for stage, _, _ in seen),
        )
    assert sum(stage == "likeness" for stage, _, _ in seen) == 1
