import pytest
import torch
from torch import nn

from core.hyperdreambooth.model.adapters import adapted, repeat, stack, unstack
from core.hyperdreambooth.model.denoising import predict
from core.hyperdreambooth.model.lidb import Factors
from core.hyperdreambooth.model.prompts import Embeddings
from core.lab.testing import random_bundle


def person(seed: int, rank: int = 2) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {"m.0": Factors(torch.randn(3, rank, generator=generator), torch.randn(rank, 4, generator=generator))}


@pytest.fixture
def toy() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def test_the_change_is_added_to_the_layer(toy):
    x = torch.randn(5, 7, 4)
    with adapted({"m": toy}, person(1)):
        changed = toy[0](x)
    torch.testing.assert_close(changed, toy[0](x) + x @ person(1)["m.0"].delta().T)


def test_rows_have_their_own_person(toy):
    x = torch.randn(2, 7, 4)
    with adapted({"m": toy}, stack([person(1, rank=1), person(2, rank=3)])):
        both = toy(x)
    for row, one in enumerate((person(1, rank=1), person(2, rank=3))):
        with adapted({"m": toy}, one):
            torch.testing.assert_close(both[row], toy(x[row : row + 1])[0])


def test_rows_beyond_the_people_are_the_base_model_bit_for_bit(toy):
    x = torch.randn(3, 7, 4)
    with adapted({"m": toy}, stack([person(1)])):
        out = toy(x)
    assert torch.equal(out[1:], toy(x)[1:])
    assert not torch.equal(out[0], toy(x)[0])


@pytest.mark.parametrize("people", [0, 1, 3])
@pytest.mark.parametrize(("side", "padding", "stride"), [(1, 0, 1), (3, 1, 1), (3, 1, 2), (3, 0, 2), (5, 1, 1)])
def test_a_convolution_gets_the_change_of_its_kernel(side, padding, stride, people):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(5, 7, side, stride, padding), torch.randn(3, 5, 9, 6)
    batch = (people,) if people else ()
    factors = Factors(torch.randn(*batch, 7, 2), torch.randn(*batch, 2, 5 * side * side))
    with adapted({"unet": nn.Sequential(layer)}, {"unet.0": factors}):
        changed = layer(x)
    for row in range(3):
        own = (
            factors if not people else Factors(factors.left[min(row, people - 1)], factors.right[min(row, people - 1)])
        )
        kernel = layer.weight + own.delta().view_as(layer.weight) * float(not people or row < people)
        expected = nn.functional.conv2d(x[row : row + 1], kernel, layer.bias, stride, padding)
        torch.testing.assert_close(changed[row : row + 1], expected, rtol=1e-4, atol=1e-4)


def test_unstack_gives_the_people_of_a_batch():
    for seed, one in zip((1, 2), unstack(stack([person(1), person(2)])), strict=True):
        assert torch.equal(one["m.0"].left, person(seed)["m.0"].left)
        assert torch.equal(one["m.0"].right, person(seed)["m.0"].right)


def test_repeat_keeps_the_rows_of_a_person_adjacent():
    twice = repeat(stack([person(1), person(2)]), 2)["m.0"].left
    assert torch.equal(twice[0], twice[1])
    assert torch.equal(twice[2], person(2)["m.0"].left)


def test_targets_of_other_components_are_ignored_and_unknown_layers_are_errors(toy):
    with adapted({"other": toy}, person(1)):
        pass
    with pytest.raises(AttributeError), adapted({"m": nn.Sequential()}, person(1)):
        pass


def test_the_model_is_what_it_was_also_after_an_error():
    bundle = random_bundle()
    before = repr(bundle.unet), {k: v.clone() for k, v in bundle.unet.state_dict().items()}
    latents, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    embeddings = Embeddings(torch.randn(2, 16, 16))
    output = predict(bundle, latents, times, embeddings)
    someone = bundle.basis.merge(bundle.basis.zeros(1, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(RuntimeError), adapted(bundle.components, someone):
        raise RuntimeError
    assert repr(bundle.unet) == before[0]
    assert all(torch.equal(v, before[1][k]) for k, v in bundle.unet.state_dict().items())
    assert torch.equal(predict(bundle, latents, times, embeddings), output)
    assert not any(module._forward_hooks for module in bundle.unet.modules())
