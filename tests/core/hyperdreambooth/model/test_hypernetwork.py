import json
from dataclasses import replace

import pytest
import torch

from core.hyperdreambooth.model.config import HyperNetworkConfig, LinearHyperNetworkConfig
from core.hyperdreambooth.model.hypernetwork import (
    EmbeddingCoordinates,
    LinearHyperNetwork,
    TransformerHyperNetwork,
    from_description,
    new_hypernetwork,
)
from core.lab.testing import random_bundle

SHAPES = {"text_encoder.q": (10, 6), "unet.k": (8, 5)}
SMALL = HyperNetworkConfig(
    resolution=16, stem=(8, 8), width=16, heads=2, encoder_layers=1, decoder_layers=1, head_width=8, rank=2
)
LINEAR = LinearHyperNetworkConfig(resolution=16, eigenfaces=4, face_eigenfaces=4, width=5, rank=2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


EMBEDDED = [replace(SMALL, embedding=6, tokens=3), replace(LINEAR, embedding=6)]


@pytest.fixture
def linear() -> LinearHyperNetwork:
    network = new_hypernetwork(LINEAR, SHAPES)
    assert isinstance(network, LinearHyperNetwork)
    network.encoder.fit(torch.randn(12, 3, 16, 16), seed=0)
    return network


@pytest.mark.parametrize("config", [SMALL, LINEAR])
def test_every_target_gets_factors_of_its_own_shape(config):
    people = new_hypernetwork(config, SHAPES)(torch.zeros(3, 3, 16, 16))
    assert list(people) == list(SHAPES)
    assert people["unet.k"].left.shape == (3, 8, 2)
    assert people["unet.k"].right.shape == (3, 2, 5)


def test_the_change_starts_near_zero_and_both_factors_get_gradients():
    network = TransformerHyperNetwork(SMALL, SHAPES)
    person = network(torch.randn(2, 3, 16, 16))
    deltas = torch.cat([factors.delta().flatten() for factors in person.values()])
    assert deltas.abs().max() < 1e-2
    torch.autograd.backward((deltas - 1).square().sum())
    assert network.head.grad is not None
    assert network.head.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in network.encoder.stem.parameters())


def test_iterations_refine_the_prediction_from_the_same_features():
    network = TransformerHyperNetwork(SMALL, SHAPES).eval()
    features = network.encoder(torch.randn(1, 3, 16, 16))
    once, twice = network.decode(features, 1), network.decode(features, 2)
    assert not torch.equal(once["unet.k"].left, twice["unet.k"].left)
    assert torch.equal(network.decode(features)["unet.k"].left, twice["unet.k"].left)


@pytest.mark.parametrize("config", [SMALL, LINEAR])
def test_a_description_makes_the_same_network_again(config):
    network = new_hypernetwork(config, SHAPES)
    again = from_description(json.loads(json.dumps(network.describe())))
    assert type(again) is type(network)
    again.load_state_dict(network.state_dict())
    faces = torch.randn(1, 3, 16, 16)
    assert torch.equal(again(faces)["unet.k"].left, network(faces)["unet.k"].left)


@pytest.mark.parametrize("config", [SMALL, LINEAR])
def test_fresh_weights_are_those_of_the_seed(config):
    once, again, other = (new_hypernetwork(config, SHAPES, seed=seed).state_dict() for seed in (1, 1, 2))
    torch.testing.assert_close(once, again)
    assert any(not torch.equal(once[key], other[key]) for key in once)


def test_identities_are_unit_vectors():
    network = random_bundle().hypernetwork
    assert network is not None
    who = network.identity(network.encoder(torch.randn(4, 3, 16, 16)))
    torch.testing.assert_close(who.norm(dim=1), torch.ones(4))


def test_a_linear_network_starts_at_exactly_no_change_and_learns(linear):
    person = linear(torch.randn(2, 3, 16, 16))
    assert all(not factors.delta().any() for factors in person.values())
    torch.autograd.backward(sum((factors.delta() - 1).square().sum() for factors in person.values()))
    assert all(head.grad is not None and head.grad.any() for head in linear.head)


def test_a_linear_network_makes_of_an_average_face_the_average_weights(linear):
    for head in linear.head:
        torch.nn.init.normal_(head)
    faces = torch.randn(2, 3, 16, 16)
    both, middle = linear(faces), linear(faces.mean(0, keepdim=True))
    for name, factors in middle.items():
        torch.testing.assert_close(factors.left, both[name].left.mean(0, keepdim=True), rtol=1e-3, atol=1e-3)
    assert torch.equal(linear(faces, iterations=1)["unet.k"].left, both["unet.k"].left)


def test_a_widened_linear_network_predicts_the_same_and_all_of_it_learns(linear):
    faces = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        for head in linear.head:
            head.normal_()
    wide = linear.widened(5, seed=1)
    assert wide.config.rank == 5
    before, after = linear(faces), wide(faces)
    for name in SHAPES:
        torch.testing.assert_close(after[name].delta(), before[name].delta())
        assert after[name].left.shape[-1] == 5
    sum(factors.left.sum() for factors in after.values()).backward()
    assert all(head.grad is not None and head.grad.any() for head in wide.head)
    again = linear.widened(5, seed=1).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in wide.state_dict().items())


@pytest.mark.parametrize("config", EMBEDDED)
def test_a_network_that_sees_embeddings_is_the_same_for_the_mean_of_photos_as_for_the_mean_of_their_features(config):
    network = new_hypernetwork(config, SHAPES)
    photos = torch.randn(5, 6)
    network.encoder.measure(photos)
    torch.testing.assert_close(network.encoder(photos).mean(0), network.encoder(photos.mean(0)[None])[0])
    people = network(photos)
    assert people["unet.k"].left.shape == (5, 8, 2)
    assert network.identity(network.encoder(photos)).norm(dim=-1).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("config", EMBEDDED)
def test_a_network_that_sees_embeddings_is_described_whole(config):
    network = new_hypernetwork(config, SHAPES, seed=3)
    network.encoder.measure(torch.randn(5, 6))
    same = from_description(json.loads(json.dumps(network.describe())))
    same.load_state_dict(network.state_dict())
    faces = torch.randn(2, 6)
    torch.testing.assert_close(same(faces)["unet.k"].left, network(faces)["unet.k"].left)


def test_coordinates_of_embeddings_are_apart_as_the_roots_of_their_spread_and_none_is_noise():
    spread = torch.tensor([4.0, 1.0, 0.25, 0.0])
    embeddings = torch.randn(4000, 4) * spread + 3.0
    encoder = EmbeddingCoordinates(4)
    encoder.measure(embeddings)
    coordinates = encoder(embeddings)[:, 0]
    assert float(coordinates.square().mean()) == pytest.approx(1.0, abs=0.05)
    ratios = coordinates.std(0) / coordinates.std(0)[0]
    torch.testing.assert_close(ratios, torch.tensor([1.0, 0.5, 0.25, 0.0]), atol=0.03, rtol=0)
