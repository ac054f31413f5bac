from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from core.errors import BundleError
from core.hyperdreambooth.model import denoising
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.timesteps import UNIFORM, TimestepSampler
from core.lab.testing import random_bundle

ROWS = 40


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(with_hypernetwork=False)


def timesteps_of(bundle, monkeypatch, sampler: TimestepSampler = UNIFORM) -> torch.Tensor:
    seen = []

    def predict(_bundle, noisy, timesteps, *_):
        seen.append(timesteps)
        return noisy

    monkeypatch.setattr(denoising, "predict", predict)
    tokens = tokenize(bundle, ["a face"]).expand(ROWS, -1)
    latents = torch.zeros(ROWS, 4, 8, 8)
    losses = denoising_loss(bundle, latents, tokens, generator=torch.Generator().manual_seed(0), sampler=sampler)
    assert losses.shape == (ROWS,)
    return seen[0] / bundle.scheduler.config.num_train_timesteps


def test_timesteps_are_spread_evenly_over_the_batch(bundle, monkeypatch):
    shares = timesteps_of(bundle, monkeypatch).sort().values
    torch.testing.assert_close(shares, (torch.arange(ROWS) + 0.5) / ROWS, atol=0.5 / ROWS + 1e-3, rtol=0)


def test_no_timestep_lies_beyond_the_last_one(bundle, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda rows, **_: torch.full((rows,), 1 - 2**-24))
    assert timesteps_of(bundle, monkeypatch).max() < 1


def test_the_clean_end_can_be_left_out(bundle, monkeypatch):
    shares = timesteps_of(bundle, monkeypatch, TimestepSampler(least_noise=0.4)).sort().values
    assert shares[0] >= 0.4
    assert shares[ROWS // 2] == pytest.approx(0.7, abs=0.03)


def test_both_ends_can_be_left_out(bundle, monkeypatch):
    shares = timesteps_of(bundle, monkeypatch, TimestepSampler(least_noise=0.3, most_noise=0.8))
    assert 0.3 - 1e-3 <= shares.min() < 0.35
    assert 0.75 < shares.max() <= 0.8


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1.0), (0.0, 1.1)])
def test_bounds_with_nothing_between_them_are_refused(bounds):
    with pytest.raises(BundleError, match="has to be below most_noise"):
        TimestepSampler(least_noise=bounds[0], most_noise=bounds[1])


def test_a_share_of_the_rows_is_drawn_below_the_clean_bound(bundle, monkeypatch):
    shares = (
        timesteps_of(bundle, monkeypatch, TimestepSampler(0.3, most_noise=0.8, cleanest=0.25, noisiest=0.5))
        .sort()
        .values
    )
    clean, middle, noisy = shares.split([ROWS // 4, ROWS // 4, ROWS // 2])
    assert clean.max() <= 0.3 <= middle.min() + 1e-3
    assert middle.max() <= 0.8
    assert noisy.min() >= 0.9 - 1e-3
    torch.testing.assert_close(clean, 0.3 * (torch.arange(ROWS // 4) + 0.5) * 4 / ROWS, atol=0.02, rtol=0)


@pytest.mark.parametrize(("least", "cleanest", "noisiest"), [(0.3, 0.6, 0.6), (0.3, -0.1, 0.0), (0.0, 0.2, 0.0)])
def test_shares_of_the_rows_that_cannot_be_drawn_are_refused(least, cleanest, noisiest):
    with pytest.raises(BundleError, match="cleanest"):
        TimestepSampler(least, noisiest, cleanest=cleanest)


def test_a_share_of_the_rows_is_at_the_noisiest_whatever_else_is_left_out(bundle, monkeypatch):
    shares = timesteps_of(bundle, monkeypatch, TimestepSampler(least_noise=0.3, most_noise=0.8, noisiest=0.5))
    assert (shares >= 0.9 - 1e-3).sum() == ROWS // 2
    assert shares.sort().values[ROWS // 2 - 1] <= 0.8


def test_a_share_of_the_rows_is_drawn_from_the_noisiest_tenth(bundle, monkeypatch):
    shares = timesteps_of(bundle, monkeypatch, TimestepSampler(least_noise=0.2, noisiest=0.5)).sort().values
    assert (shares >= 0.9 - 1e-3).sum() == ROWS // 2
    assert shares[0] >= 0.2
    assert shares[ROWS // 4] == pytest.approx(0.55, abs=0.03)
    assert (shares < 1).all()


@pytest.mark.parametrize("noisiest", [0.0, 0.5])
def test_the_last_rows_can_be_those_with_the_most_noise(bundle, monkeypatch, noisiest):
    shares = timesteps_of(bundle, monkeypatch, TimestepSampler(least_noise=0.2, noisiest=noisiest, last=10))
    assert shares[-10:].min() >= shares[:-10].max()
    assert 0.2 <= shares.min() + 1e-3 < 0.25
    assert not torch.equal(shares[-10:], shares[-10:].sort().values), "which of them is noisier is left to chance"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_an_output_that_is_right_says_the_latents_under_the_noise(bundle, kind):
    scheduler = DDIMScheduler(prediction_type=kind)
    bundle = replace(bundle, scheduler=scheduler)
    latents, noise, timesteps = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 400, 990])
    noised = denoising.add_noise(bundle, latents, noise, timesteps)
    right = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(denoising.without_noise(bundle, right, noised), latents, atol=1e-3, rtol=1e-3)
    assert not denoising.errors(bundle, right, noised, latents).any()
