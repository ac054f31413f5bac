import pytest
import torch

from core.hyperdreambooth.config import HypernetworkConfig
from core.hyperdreambooth.hypernetwork import HyperNetwork
from core.hyperdreambooth.testing import random_bundle

SHAPES = {"text_encoder.q": (10, 6), "unet.k": (8, 5)}
SMALL = HypernetworkConfig(
    resolution=16, stem=(8, 8), width=16, heads=2, encoder_layers=1, decoder_layers=1, head_width=8, rank=2
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_every_target_gets_factors_of_its_own_shape():
    people = HyperNetwork(SMALL, SHAPES)(torch.zeros(3, 3, 16, 16))
    assert list(people) == list(SHAPES)
    assert people["unet.k"].left.shape == (3, 8, 2)
    assert people["unet.k"].right.shape == (3, 2, 5)


def test_the_change_starts_near_zero_and_both_factors_get_gradients():
    network = HyperNetwork(SMALL, SHAPES)
    person = network(torch.randn(2, 3, 16, 16))
    deltas = torch.cat([factors.delta().flatten() for factors in person.values()])
    assert deltas.abs().max() < 1e-2
    torch.autograd.backward((deltas - 1).square().sum())
    assert network.head.grad is not None
    assert network.head.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in network.encoder.stem.parameters())


def test_iterations_refine_the_prediction_from_the_same_features():
    network = HyperNetwork(SMALL, SHAPES).eval()
    features = network.encoder(torch.randn(1, 3, 16, 16))
    once, twice = network.decode(features, 1), network.decode(features, 2)
    assert not torch.equal(once["unet.k"].left, twice["unet.k"].left)
    assert torch.equal(network.decode(features)["unet.k"].left, twice["unet.k"].left)


def test_a_description_makes_the_same_network_again():
    network = HyperNetwork(SMALL, SHAPES)
    again = HyperNetwork.from_description(network.describe())
    again.load_state_dict(network.state_dict())
    faces = torch.randn(1, 3, 16, 16)
    assert torch.equal(again(faces)["unet.k"].left, network(faces)["unet.k"].left)


def test_identities_are_unit_vectors():
    network = random_bundle().hypernetwork
    assert network is not None
    who = network.identity(network.encoder(torch.randn(4, 3, 16, 16)))
    torch.testing.assert_close(who.norm(dim=1), torch.ones(4))
