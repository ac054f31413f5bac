"""What an autoencoder is trained on."""

import numpy as np
import pytest
import torch

from core.lab.testing import random_bundle
from core.lab.training.autoencoder import autoencoder_losses, decoder_losses
from core.lab.training.data import Faces
from core.lab.training.loop import Optimization, step_generator
from core.lab.training.recipe import Autoencoder, Decoder

STEP = Optimization(steps=1, batch=8, learning_rate=1e-3)
STYLES = ("neon sign", "cartoon")


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


@pytest.fixture(scope="module")
def faces():
    pictures = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    return Faces(pictures, ("a person",) * 8, ((),) * 8)


@pytest.mark.parametrize("changes", [{}, {"crop": 32}, {"smaller": 1.0}, {"recoloured": 0.25}, {"slices": 2}])
def test_every_way_of_showing_pictures_gives_gradients_to_both_halves(bundle, faces, changes):
    bundle.vae.requires_grad_(True).zero_grad()
    losses = autoencoder_losses(bundle, faces, Autoencoder(STEP, **changes), STYLES, step_generator(0, 0))
    losses["loss"].backward()
    assert set(losses) == {"loss", "reconstruction", "edges", "colours", "spread", "anchor"}
    assert bundle.vae.encoder.conv_in.weight.grad.abs().sum() > 0
    assert bundle.vae.decoder.conv_out.weight.grad.abs().sum() > 0


def test_the_decoder_learns_alone(bundle, faces):
    bundle.vae.requires_grad_(True).zero_grad()
    losses = decoder_losses(bundle, faces, Decoder(STEP), Autoencoder(STEP), STYLES, step_generator(0, 0))
    losses["loss"].backward()
    assert bundle.vae.encoder.conv_in.weight.grad is None or not bundle.vae.encoder.conv_in.weight.grad.any()
    assert bundle.vae.decoder.conv_out.weight.grad.abs().sum() > 0


def test_a_step_is_a_function_of_its_generator(bundle, faces):
    config = Autoencoder(STEP, crop=32, recoloured=0.25, smaller=0.5)
    once, again, other = (
        autoencoder_losses(bundle, faces, config, STYLES, step_generator(0, step))["loss"] for step in (3, 3, 4)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_latents_are_held_near_earlier_ones_of_all_but_recoloured_pictures(bundle, faces):
    seen = []

    def earlier(pixels):
        seen.append(len(pixels))
        return torch.full((len(pixels), 4, 32, 32), 3.0)

    config = Autoencoder(STEP, anchor=0.5, recoloured=0.25)
    with torch.no_grad():
        losses = autoencoder_losses(bundle, faces, config, STYLES, step_generator(0, 0), earlier=earlier)
        free = autoencoder_losses(bundle, faces, config, STYLES, step_generator(0, 0))
    assert seen == [6]
    assert losses["anchor"] > 1
    assert float(losses["loss"] - free["loss"]) == pytest.approx(0.5 * float(losses["anchor"]), rel=1e-3)
