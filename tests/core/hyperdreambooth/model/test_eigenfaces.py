import pytest
import torch

from core.hyperdreambooth.model.eigenfaces import Eigenfaces

SIDE = 16


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """Pictures that vary in three ways only, the first the most."""
    generator = torch.Generator().manual_seed(0)
    ways = torch.randn(3, 3, SIDE, SIDE, generator=generator)
    amounts = torch.randn(60, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.3])
    return 0.2 + torch.einsum("nk,kchw->nchw", amounts, ways)


@pytest.fixture(scope="module")
def encoder(faces) -> Eigenfaces:
    fitted = Eigenfaces(SIDE, 3, 3)
    fitted.fit(faces, seed=0)
    return fitted


def test_coordinates_are_centred_and_have_a_mean_square_of_one(encoder, faces):
    coordinates = encoder(faces)
    assert coordinates.shape == (60, 1, 6)
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(1, 6), rtol=0, atol=1e-4)
    torch.testing.assert_close(coordinates.square().mean(), torch.tensor(1.0), rtol=0.02, atol=0)


def test_what_varies_less_is_made_larger_but_stays_less(encoder, faces):
    spread = encoder(faces)[:, 0, :3].std(0)
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] / spread[2] < 5  # of 10 in the pictures


def test_the_face_s_own_coordinates_do_not_see_what_is_around_it(encoder, faces):
    elsewhere = faces.clone()
    elsewhere[:, :, 0, :] += 1.0
    assert torch.equal(encoder(elsewhere)[..., 3:], encoder(faces)[..., 3:])
    assert not torch.equal(encoder(elsewhere)[..., :3], encoder(faces)[..., :3])


def test_a_seed_makes_the_same_directions_and_leaves_the_global_generator_alone(encoder, faces):
    again = Eigenfaces(SIDE, 3, 3)
    before = torch.random.get_rng_state()
    again.fit(faces, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(again.state_dict(), encoder.state_dict())


def test_fewer_faces_than_directions_leave_the_rest_at_zero(faces):
    few = Eigenfaces(SIDE, 8, 8)
    few.fit(faces[:4], seed=0)
    assert few(faces).isfinite().all()
