"""Likeness, and the second try when it is poor."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import JobCanceled
from core.hyperdreambooth.faces.recogniser import FaceRecogniser, RecogniserConfig
from core.hyperdreambooth.formats.lidb_weights import to_bytes
from core.hyperdreambooth.likeness import Judge, judges_of, measure_likeness
from core.hyperdreambooth.personalize import PersonalizeOptions, personalize
from core.hyperdreambooth.sampling import Row
from core.hyperdreambooth.testing import TINY, random_bundle

PHOTO = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bundle_with(*, hypernetwork=False, **finetuning):
    config = replace(TINY, finetune=replace(TINY.finetune, **finetuning))
    return random_bundle(with_hypernetwork=hypernetwork, config=config)


def says(*likenesses, name="strict", poor=0.3):
    """A judge with a list of what it says, one a try: photos are unit vectors, pictures lean towards them."""
    answers = iter([answer for likeness in likenesses for answer in (1.0, likeness)])

    def embed(pictures):
        cosine = next(answers)
        return np.tile([[cosine, np.sqrt(1 - cosine**2)]], (len(pictures), 1))

    return Judge(name, embed, poor)


def personalized(bundle, *judges, **options):
    seen = []
    made = personalize(
        bundle,
        PHOTO,
        PersonalizeOptions(**options),
        judges=judges,
        on_progress=lambda *step: seen.append(step),
    )
    return made, seen


def test_every_judge_is_asked_and_the_mean_counts():
    bundle = bundle_with()
    row = Row("a [V] face", seed=1)
    two = [says(0.2), says(0.6, name="kind")]
    likeness = measure_likeness(bundle, PHOTO, row, two)
    assert likeness.by == {"strict": pytest.approx(0.2), "kind": pytest.approx(0.6)}
    assert likeness.mean == pytest.approx(0.4)
    assert measure_likeness(bundle, PHOTO, row, []) is None


def test_the_hypernetwork_judges_only_where_nobody_else_does():
    plain, predicting = bundle_with(), bundle_with(hypernetwork=True)
    strict = says()
    assert judges_of(plain) == ()
    assert [judge.name for judge in judges_of(predicting)] == ["hypernetwork"]
    assert judges_of(predicting, [strict]) == (strict,)
    own = replace(predicting, recogniser=FaceRecogniser(RecogniserConfig(channels=(8,), embedding=8)).eval())
    assert [judge.name for judge in judges_of(own, [strict])] == ["bundle", "strict"]


def test_a_bundles_own_recogniser_judges_what_was_made():
    own = FaceRecogniser(RecogniserConfig(channels=(8,), embedding=8)).eval().requires_grad_(False)
    made = personalize(replace(bundle_with(), recogniser=own), PHOTO)
    assert set(made.likeness.by) == {"bundle"}
    assert -1 <= made.likeness.mean <= 1
    assert made.tries == 1


def test_a_poor_likeness_gets_a_second_try_at_a_higher_rank_and_the_better_one_is_kept():
    bundle = bundle_with(second_rank=5)
    made, seen = personalized(bundle, says(0.1, 0.4))
    assert (made.tries, made.weights.metadata.rank) == (2, 5)
    assert made.likeness.by == {"strict": pytest.approx(0.4)}
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["finetune", "likeness", "second try"]
    assert seen[-1][0] == "likeness"
    assert set(made.seconds) == {"finetune", "likeness", "second try"}
    kept, _ = personalized(bundle, says(0.1, 0.05))
    assert (kept.tries, kept.weights.metadata.rank, kept.likeness.mean) == (2, 3, pytest.approx(0.1))


def test_the_judge_who_finds_it_poor_says_which_try_is_kept():
    kind = {"name": "kind", "poor": None}
    made, _ = personalized(bundle_with(second_rank=5), says(0.9, 0.1, **kind), says(0.1, 0.4))
    assert (made.tries, made.weights.metadata.rank) == (2, 5)
    assert made.likeness.by == {"kind": pytest.approx(0.1), "strict": pytest.approx(0.4)}


def test_a_bundle_says_what_is_poor_by_its_own_recogniser_alone():
    own = FaceRecogniser(RecogniserConfig(channels=(8,), embedding=8)).eval()
    bundle = replace(bundle_with(poor_likeness=0.3), recogniser=own)
    assert [judge.poor for judge in judges_of(bundle, [says(poor=None)])] == [0.3, None]
    made, _ = personalized(bundle_with(poor_likeness=0.3), says(0.1, poor=None))
    assert made.tries == 1


@pytest.mark.parametrize(
    ("poor", "options", "likeness"),
    [(None, {}, 0.0), (0.3, {}, 0.3), (0.3, {"rank": 4}, 0.0)],
    ids=["no threshold", "good enough", "the caller named a rank"],
)
def test_otherwise_there_is_one_try(poor, options, likeness):
    made, seen = personalized(bundle_with(), says(likeness, poor=poor), **options)
    assert made.tries == 1
    assert "second try" not in {stage for stage, _, _ in seen}


def test_both_tries_are_the_same_each_time_and_differ_in_their_seed():
    bundle = bundle_with(second_rank=3)
    first, second = (to_bytes(personalized(bundle, says(0.1, better))[0].weights) for better in (0.0, 0.2))
    assert first != second
    assert to_bytes(personalized(bundle, says(0.1, 0.2))[0].weights) == second


def test_a_second_try_goes_on_from_the_same_start():
    bundle = bundle_with(second_rank=5)
    start = personalize(bundle, PHOTO).weights
    made, _ = personalized(bundle, says(0.1, 0.2), start=start)
    assert (made.tries, made.weights.metadata.rank, made.kept_step) == (2, 5, 3)


@pytest.mark.parametrize("stage", ["second try", "likeness"])
def test_it_can_be_canceled_in_a_second_try_and_while_it_is_judged(stage):
    seen = []

    def stop():
        return any(each == stage for each, _, _ in seen)

    with pytest.raises(JobCanceled):
        personalize(
            bundle_with(second_rank=5),
            PHOTO,
            judges=[says(0.1, 0.2)],
            on_progress=lambda *step: seen.append(step),
            should_stop=stop,
        )
    assert sum(each == stage for each, _, _ in seen) == 1
