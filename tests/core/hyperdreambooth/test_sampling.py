from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler

from core.errors import BundleError, InvalidInput, JobCanceled
from core.hyperdreambooth.finetune import PROMPT
from core.hyperdreambooth.formats.lidb_weights import to_bytes
from core.hyperdreambooth.model.checks import try_out
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions, Row
from core.hyperdreambooth.sampling import generate
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


@pytest.fixture(scope="module")
def people(bundle):
    """Two people with weights strong enough to be seen through a random model."""
    made = []
    for seed in (1, 2):
        photo = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        made.append(personalize(bundle, photo, PersonalizeOptions(seed=seed, steps=8)).weights)
    return made


def test_pictures_are_uint8_rgb(bundle):
    pictures = generate(bundle, [Row("a face", seed=1), Row("a face", seed=2)])
    assert pictures.shape == (2, 16, 16, 3)
    assert pictures.dtype == torch.uint8
    assert not torch.equal(pictures[0], pictures[1])


def test_the_same_row_gives_the_same_picture_in_any_company(bundle, people):
    row = Row(PROMPT.format(noun="face"), weights=people[0], seed=3)
    alone = generate(bundle, [row])
    among = generate(bundle, [Row("x", weights=people[1], seed=9), row, Row("y", seed=4)])
    assert (alone[0].int() - among[1].int()).abs().max() <= 1


def test_more_rows_than_a_pass_takes_are_made_in_several(bundle, people):
    rows = [Row("a", weights=people[number % 2], seed=number) for number in range(6)]
    steps: list[tuple[int, int]] = []
    pictures = generate(bundle, rows, steps=2, on_step=lambda step, of: steps.append((step, of)))
    assert len(pictures) == 6
    assert steps[-1] == (4, 4)
    torch.testing.assert_close(pictures[5].int(), generate(bundle, rows[5:], steps=2)[0].int(), atol=1, rtol=0)


def test_the_base_model_is_bit_identical_after_mixed_requests(bundle, people):
    before = {name: value.clone() for name, value in bundle.unet.state_dict().items()}
    plain = generate(bundle, [Row("a face", seed=1)])
    for number in range(10):
        generate(bundle, [Row("a [V] face", weights=people[number % 2], seed=number), Row("b", seed=number)], steps=1)
    assert torch.equal(generate(bundle, [Row("a face", seed=1)]), plain)
    assert all(torch.equal(value, before[name]) for name, value in bundle.unet.state_dict().items())


def test_sizes_that_the_model_cannot_halve_are_refused(bundle):
    with pytest.raises(InvalidInput, match="multiples of 4"):
        generate(bundle, [Row("a")], height=18, width=16)
    assert generate(bundle, [Row("a")], height=24, width=16, steps=1).shape == (1, 24, 16, 3)


def test_it_stops_when_it_is_asked_to(bundle):
    with pytest.raises(JobCanceled):
        generate(bundle, [Row("a")], should_stop=lambda: True)


SCHEDULERS = sorted(
    (each for each in DDIMScheduler().compatibles if "dummy" not in each.__module__),  # what needs SciPy, or torchsde
    key=lambda each: each.__name__,
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda each: each.__name__)
def test_every_scheduler_draws_the_same_picture_from_the_same_seed(bundle, people, scheduler):
    """Also those that add noise at each step, in any company."""
    other = replace(bundle, scheduler=scheduler.from_config({**bundle.scheduler.config, "skip_prk_steps": True}))
    if scheduler is EDMEulerScheduler:  # for models whose inputs are scaled in another way
        with pytest.raises(BundleError, match="do not fit each other"):
            try_out(other)
        return
    row, seen = Row(PROMPT.format(noun="face"), weights=people[0], seed=3), []
    alone = generate(other, [row], steps=6, on_step=lambda step, of: seen.append((step, of)))
    torch.rand(3)
    assert torch.equal(generate(other, [row], steps=6), alone)
    among = generate(other, [Row("x", weights=people[1], seed=9), row, Row("y", seed=4)], steps=6)
    assert (alone[0].int() - among[1].int()).abs().max() <= 1
    assert not torch.equal(alone, generate(other, [replace(row, seed=4)], steps=6))
    assert seen == sorted(seen)
    assert seen[-1] == (6, 6)


def with_unconditional(bundle, whose):
    return replace(bundle, config=replace(bundle.config, sampling=replace(bundle.config.sampling, unconditional=whose)))


def test_whose_weights_the_pass_without_the_prompt_carries(bundle, people):
    row = Row(PROMPT.format(noun="face"), weights=people[0], seed=3)
    guided, away = (generate(with_unconditional(bundle, whose), [row]) for whose in ("subject", "base"))
    assert not torch.equal(guided, away)
    alone = replace(row, guidance_scale=1.0)  # then that pass does not count at all
    guided, away = (generate(with_unconditional(bundle, whose), [alone]) for whose in ("subject", "base"))
    torch.testing.assert_close(guided.int(), away.int(), atol=1, rtol=0)


def test_the_base_models_pass_leaves_other_subjects_out(bundle, people):
    away = with_unconditional(bundle, "base")
    row = Row(PROMPT.format(noun="face"), weights=people[0], seed=3)
    among = generate(away, [Row("x", weights=people[1], seed=9), row, Row("y", seed=4)])
    torch.testing.assert_close(generate(away, [row])[0].int(), among[1].int(), atol=1, rtol=0)


def test_guidance_of_one_row_leaves_the_others(bundle):
    rows = [Row("a", seed=1, guidance_scale=1.0), Row("a", seed=1, guidance_scale=6.0)]
    pictures = generate(bundle, rows)
    torch.testing.assert_close(pictures[0].int(), generate(bundle, rows[:1])[0].int(), atol=1, rtol=0)


class TestPersonalize:
    photo = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def test_it_reports_every_stage_and_gives_weights_a_preview_and_a_likeness(self, bundle):
        seen, previews = [], []
        done = personalize(
            bundle,
            self.photo,
            on_progress=lambda stage, step, of: seen.append((stage, step, of)),
            on_preview=previews.append,
        )
        assert [stage for stage, step, of in seen if step == of] == [
            "hypernetwork",
            "finetune",
            "likeness",
        ]
        assert done.weights.metadata.kept_step == 3
        assert [weights.metadata.kept_step for weights in previews] == [0, 1], (
            "the prediction, then a third of the steps"
        )
        assert done.preview is previews[1]
        assert done.likeness is not None
        assert -1 <= done.likeness_by["hypernetwork"] <= 1
        assert set(done.seconds) == {"hypernetwork", "preview", "finetune", "likeness"}

    def test_without_a_hypernetwork_it_starts_from_zero_with_more_steps(self):
        done = personalize(random_bundle(with_hypernetwork=False), self.photo)
        assert done.likeness is None
        assert done.kept_step == 4

    def test_without_a_hypernetwork_the_preview_is_what_a_third_of_the_steps_gave(self):
        bundle, seen = random_bundle(with_hypernetwork=False), []
        done = personalize(
            bundle,
            self.photo,
            PersonalizeOptions(steps=6),
            on_progress=lambda stage, step, _: seen.append((stage, step)),
            on_preview=lambda weights: seen.append(("preview", weights.metadata.kept_step)),
        )
        assert seen == [
            ("finetune", 1),
            ("finetune", 2),
            ("preview", 2),
            *(("finetune", step) for step in (3, 4, 5, 6)),
        ]
        assert set(done.seconds) == {"finetune", "preview"}
        unseen = personalize(bundle, self.photo, PersonalizeOptions(steps=6))
        assert to_bytes(unseen.preview) == to_bytes(done.preview) != to_bytes(done.weights) == to_bytes(unseen.weights)

    def test_two_steps_leave_no_time_for_a_preview(self):
        assert (
            personalize(random_bundle(with_hypernetwork=False), self.photo, PersonalizeOptions(steps=2)).preview is None
        )

    def test_the_same_photo_and_seed_give_the_same_bytes(self, bundle):
        first, second = (personalize(bundle, self.photo, PersonalizeOptions(seed=4)).weights for _ in range(2))
        assert to_bytes(first) == to_bytes(second)

    def test_rank_and_steps_can_be_chosen(self, bundle):
        done = personalize(bundle, self.photo, PersonalizeOptions(rank=5, steps=2))
        assert done.weights.metadata.rank == 5
        assert done.kept_step == 2

    def test_several_photos_of_one_person(self, bundle):
        assert personalize(bundle, torch.cat([self.photo, self.photo])).weights.metadata.rank == 3

    def test_it_can_be_canceled(self, bundle):
        with pytest.raises(JobCanceled):
            personalize(bundle, self.photo, should_stop=lambda: True)


def test_strength_goes_from_the_base_model_to_all_of_the_weights(bundle, people):
    """Each row at its own, in one batch."""
    plain = Row("a [V] face", weights=people[0], seed=1)
    none, half, all_of_it, default, base = generate(
        bundle, [*(replace(plain, strength=each) for each in (0.0, 0.5, 1.0, None)), replace(plain, weights=None)]
    )
    assert torch.equal(none, base)
    assert torch.equal(all_of_it, default)
    assert not torch.equal(half, base)
    assert not torch.equal(half, default)


def test_above_its_share_of_the_noise_schedule_a_subject_does_not_count(bundle, people):
    row = Row("a [V] face", weights=people[0], seed=1)
    never = bundle.configured(bundle.config.changed("sampling.subject_below", 0.0))
    assert torch.equal(generate(never, [row]), generate(never, [replace(row, weights=None)]))
    late = generate(bundle.configured(bundle.config.changed("sampling.subject_below", 0.8)), [row], steps=8)
    assert not torch.equal(late, generate(bundle, [row], steps=8))
    assert not torch.equal(late, generate(never, [row], steps=8))
