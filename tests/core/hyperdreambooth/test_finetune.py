from dataclasses import replace

import pytest
import torch

from core.errors import BundleError, JobCanceled
from core.hyperdreambooth import finetune as finetune_module
from core.hyperdreambooth.finetune import OPTIMIZERS, TrainingLatents, encode_training_pictures, finetune
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.lidb import Factors, truncate
from core.hyperdreambooth.timesteps import TimestepSampler
from core.lab.testing import random_bundle

CONFIG = FinetuneConfig(rank=3, steps=4, rows=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(people: int = 1) -> TrainingLatents:
    return TrainingLatents(torch.randn(people, 1, 4, 8, 8, generator=seeded(5)), torch.empty(people, 0, 4, 8, 8))


def photos(people: int = 1, each: int = 1) -> torch.Tensor:
    shape = (people, each, 16, 16, 3)
    return torch.randint(0, 256, shape, generator=seeded(6), dtype=torch.uint8)


def test_it_trains_the_person_and_not_the_base(bundle):
    before = {name: value.clone() for name, value in bundle.unet.state_dict().items()}
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    tuned = finetune(bundle, latents(), start, CONFIG, generator=seeded())
    assert len(tuned.losses) == CONFIG.steps == tuned.kept_step
    assert any(factors.left.abs().sum() > 0 for factors in tuned.factors.values())
    assert all(torch.equal(value, before[name]) for name, value in bundle.unet.state_dict().items())


def test_it_trains_also_where_sampling_asked_for_the_basis_first():
    fresh_bundle = random_bundle()
    with torch.inference_mode():
        start = fresh_bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    assert finetune(fresh_bundle, latents(), start, CONFIG, generator=seeded()).kept_step == CONFIG.steps


def test_factors_stay_in_the_basis_at_the_rank_that_is_wanted(bundle):
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    target = bundle.targets[0]
    a, b = target.capped(bundle.config.lidb.a, bundle.config.lidb.b)
    inside = finetune(bundle, latents(), start, CONFIG, generator=seeded()).factors[target.name]
    assert (inside.left.shape, inside.right.shape) == ((1, a, 3), (1, 3, b))


def test_of_a_start_of_a_higher_rank_the_closest_is_gone_on_from(bundle):
    wide = {
        name: Factors(torch.randn_like(f.left), f.right)
        for name, f in bundle.basis.zeros(5, generator=seeded(), batch=(1,)).items()
    }
    still = replace(CONFIG, steps=1, learning_rate=0.0)
    tuned = finetune(bundle, latents(), wide, still, generator=seeded()).factors
    for name, factors in wide.items():
        torch.testing.assert_close(tuned[name].delta(), truncate(factors, CONFIG.rank).delta())


def test_fixed_ranks_stay_the_predictions_and_the_others_count_their_strength(bundle):
    start = {
        name: Factors(torch.randn(f.left.shape, generator=seeded(3)), f.right)
        for name, f in bundle.basis.zeros(2, generator=seeded(), batch=(1,)).items()
    }
    seen = []
    whole, half = (
        finetune(
            bundle,
            latents(),
            start,
            replace(CONFIG, fixed_ranks=2, strength=strength),
            generator=seeded(),
            on_step=lambda _step, _steps, factors: seen.append(factors),
        ).factors
        for strength in (1.0, 0.5)
    )
    for name, before in start.items():
        for after in (whole, half, *seen):
            assert torch.equal(after[name].left[..., :2], before.left)
            assert torch.equal(after[name].right[..., :2, :], before.right)
        torch.testing.assert_close(0.5 * whole[name].left[..., 2:], half[name].left[..., 2:])
        assert whole[name].left[..., 2:].abs().sum() > 0
    still = replace(CONFIG, fixed_ranks=2, strength=0.5, steps=1, learning_rate=0.0)
    again = finetune(bundle, latents(), half, still, generator=seeded()).factors
    for name, factors in half.items():
        torch.testing.assert_close(again[name].delta(), factors.delta())


def test_some_rank_has_to_be_free():
    with pytest.raises(ValueError, match=r"fixed_ranks \(3\) leaves none"):
        replace(CONFIG, fixed_ranks=3)


def test_the_same_seed_gives_the_same_weights(bundle):
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    first, second = (finetune(bundle, latents(), start, CONFIG, generator=seeded(1)).factors for _ in range(2))
    assert all(torch.equal(first[name].left, second[name].left) for name in first)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_people_in_one_batch_do_not_see_each_other(bundle, optimizer):
    """The second person's photo changes; the first one's weights stay."""
    config = replace(CONFIG, optimizer=optimizer)
    start = bundle.basis.zeros(1, generator=seeded(), batch=(2,))
    both = latents(2)
    other = TrainingLatents(torch.cat([both.photos[:1], both.photos[1:] * 2]), both.styled)
    first, second = (finetune(bundle, each, start, config, generator=seeded(1)).factors for each in (both, other))
    name = bundle.targets[-1].name
    torch.testing.assert_close(first[name].left[0], second[name].left[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first[name].left[1], second[name].left[1], atol=1e-5)


def test_it_stops_before_the_step_at_which_it_is_asked_to(bundle):
    seen: list[int] = []
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    with pytest.raises(JobCanceled):
        finetune(
            bundle,
            latents(),
            start,
            CONFIG,
            generator=seeded(),
            on_step=lambda step, *_: seen.append(step),
            should_stop=lambda: len(seen) == 2,
        )
    assert seen == [1, 2]


def test_the_loss_falls_when_there_is_something_to_learn(bundle):
    config = replace(CONFIG, steps=30, rows=8, learning_rate=3e-2)
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    losses = finetune(bundle, latents(), start, config, generator=seeded()).losses
    assert sum(losses[-8:]) < sum(losses[:8])


def test_styled_rows_show_each_photo_in_turn_with_the_prompt_of_the_style(bundle):
    config = replace(CONFIG, rows=3, styled_rows=1, styles=("pencil sketch", "neon sign", "cartoon"))
    encoded = encode_training_pictures(bundle, photos(2, 2), config)
    assert encoded.photos.shape[:2] == (2, 2)
    assert encoded.styled.shape[:2] == (2, 3)
    first = encode_training_pictures(bundle, photos(2, 2)[:, :1], config)
    assert torch.allclose(first.styled[:, 0], encoded.styled[:, 0], atol=1e-5)
    assert not torch.allclose(first.styled[:, 1], encoded.styled[:, 1], atol=1e-5)
    start = bundle.basis.zeros(1, generator=seeded(), batch=(2,))
    with_styles, without = (
        finetune(bundle, each, start, config, generator=seeded()).factors
        for each in (encoded, TrainingLatents(encoded.photos, encoded.styled[:, :0]))
    )
    name = bundle.targets[-1].name
    assert not torch.allclose(with_styles[name].left, without[name].left)


@pytest.mark.parametrize(("noisiest", "last"), [(False, 0), (True, 2)])
def test_both_ends_of_the_schedule_can_be_left_out_and_styled_rows_be_those_with_the_most_noise(
    bundle, monkeypatch, noisiest, last
):
    drawn = []

    def loss(_bundle, latents, _tokens, factors, *, sampler, **_):
        drawn.append(sampler)
        return sum(f.right.sum() for f in factors.values()) + torch.zeros(len(latents))

    monkeypatch.setattr("core.hyperdreambooth.finetune.denoising_loss", loss)
    config = replace(
        CONFIG,
        rows=5,
        steps=1,
        least_noise=0.1,
        most_noise=0.9,
        styled_rows=2,
        styles=("cartoon",),
        styled_noisiest=noisiest,
    )
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    finetune(bundle, encode_training_pictures(bundle, photos(), config), start, config, generator=seeded())
    finetune(bundle, latents(), start, replace(config, styled_rows=0), generator=seeded())
    assert drawn == [TimestepSampler(0.1, last=last, most_noise=0.9), TimestepSampler(0.1, most_noise=0.9)]


def test_no_styled_rows_means_no_filtered_pictures(bundle):
    assert encode_training_pictures(bundle, photos(), replace(CONFIG, styles=("pencil sketch",))).styled.shape[1] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"styles": ("crayon",)}, "'crayon', which is none of pencil sketch"),
        ({"styles": ("cartoon",), "styled_rows": 2}, "fewer than finetune.rows"),
    ],
)
def test_a_style_without_a_filter_or_no_row_for_the_photo_is_refused(bundle, wrong, message):
    with pytest.raises(BundleError, match=message):
        encode_training_pictures(bundle, photos(), replace(CONFIG, **{"styled_rows": 1, **wrong}))


def test_factors_are_a_batch_of_people():
    assert Factors(torch.zeros(2, 5, 1), torch.zeros(2, 1, 4)).delta().shape == (2, 5, 4)


def test_mirrored_photos_take_turns_and_their_prompt_says_right_for_left(bundle, monkeypatch):
    said = []
    monkeypatch.setattr(
        finetune_module, "tokenize", lambda _bundle, texts: said.extend(texts) or torch.zeros(len(texts), 4).long()
    )
    monkeypatch.setattr(finetune_module, "words_of", lambda pictures: [("looking left", "smiling")] * len(pictures))
    config = replace(CONFIG, mirrored=True, worded=True, rows=3, steps=1)
    pictures = encode_training_pictures(bundle, photos(each=2), config)
    latent_rows, prompts = pictures.rows(config, step=0)
    first, second = pictures.photos[0]
    assert prompts == [0, 3, 0]
    for row, expected in zip(latent_rows, (first, second.flip(-1), first), strict=True):
        torch.testing.assert_close(row, expected)
    assert [prompt for _, prompt in (pictures.rows(config, 0), pictures.rows(config, 1))] == [prompts, [3, 0, 3]]
    start = bundle.basis.zeros(1, generator=seeded(), batch=(1,))
    finetune(bundle, pictures, start, config, generator=seeded())
    assert said == ["a [V] face, looking left, smiling", "a [V] face, looking right, smiling"] * 2


def test_a_centred_loss_counts_the_face_more(bundle):
    places = finetune_module.face_weights(torch.zeros(1, 1, 4, 32, 32), centre=3.0)
    assert places.mean() == pytest.approx(1.0)
    assert places[18, 16] > 3 * places[0, 0]
    assert finetune_module.face_weights(torch.zeros(1, 1, 4, 32, 32), centre=0.0) is None
