"""The optimizer of thin factors: what a step is, and for whom."""

from itertools import pairwise

import pytest
import torch

from core.hyperdreambooth.muon import Muon, orthogonal


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stepped(factor: torch.Tensor, *gradients: torch.Tensor, lr: float = 0.1) -> torch.Tensor:
    """The factor after a step along each of the gradients."""
    moved = factor.clone().requires_grad_()
    optimizer = Muon([moved], lr)
    for gradient in gradients:
        moved.grad = gradient.clone()
        optimizer.step()
    return moved.detach()


def test_the_orthogonal_part_is_that_of_the_singular_value_decomposition():
    matrices = [random(3, 9, 4), random(3, 20, 4, seed=1), random(3, 5, 7, seed=2), random(3, 4, 11, seed=3)]
    for matrix, found in zip(matrices, orthogonal(matrices), strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        torch.testing.assert_close(found, u @ v, atol=1e-5, rtol=1e-4)


def test_of_nothing_it_is_nothing_and_of_few_directions_it_is_finite():
    narrow = torch.cat([random(1, 6, 1), torch.zeros(1, 6, 2)], dim=2)
    none, few = orthogonal([torch.zeros(1, 5, 3), narrow])
    assert not none.any()
    assert few.isfinite().all()
    assert few.norm() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("shape", [(2, 30, 4), (2, 4, 30)])
def test_a_step_has_the_size_of_the_learning_rate_however_small_the_gradient(shape):
    start, gradient = random(*shape), random(*shape, seed=1)
    small, large = (start - stepped(start, scale * gradient) for scale in (1e-4, 1e4))
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-3)
    assert small.square().mean().sqrt() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (40, 2, 3, 3), (6, 30), (30, 6)])
def test_a_layer_of_its_own_is_one_matrix_from_its_outputs_to_its_inputs(shape):
    kernel = random(*shape).requires_grad_()
    before = kernel.detach().clone()
    kernel.grad = random(*shape, seed=1)
    Muon([kernel], 0.1, kernels=True).step()
    u, _, v = torch.linalg.svd(kernel.grad.flatten(1), full_matrices=False)
    long = max(kernel.flatten(1).shape)
    torch.testing.assert_close((before - kernel.detach()).flatten(1), 0.1 * long**0.5 * u @ v, atol=1e-4, rtol=1e-3)


def test_weights_decay_beside_the_step():
    kernel = random(5, 7).requires_grad_()
    before = kernel.detach().clone()
    kernel.grad = torch.zeros(5, 7)
    Muon([kernel], 0.1, weight_decay=0.5, kernels=True).step()
    torch.testing.assert_close(kernel.detach(), before * 0.95)


def test_what_one_person_learns_does_not_depend_on_the_others():
    start, gradients = random(3, 12, 4), [random(3, 12, 4, seed=seed) for seed in (1, 2, 3)]
    batched = stepped(start, *gradients)
    alone = stepped(start[1:2], *(gradient[1:2] for gradient in gradients))
    torch.testing.assert_close(batched[1:2], alone, atol=1e-6, rtol=1e-5)


def test_it_finds_a_low_rank_matrix_in_few_steps():
    goal = random(1, 20, 2) @ random(1, 2, 30, seed=1)
    left, right = (torch.nn.Parameter(random(1, *shape, seed=2) / 4) for shape in ((20, 2), (2, 30)))
    optimizer, losses = Muon([left, right], 0.1), []
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 60)
        optimizer.zero_grad()
        loss = (left @ right - goal).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.02 * losses[0]
    assert all(later < before for before, later in pairwise(losses[::10]))


def test_several_matrices_in_one_parameter_move_as_each_of_them_alone():
    torch.manual_seed(0)
    whole = torch.nn.Parameter(torch.randn(3, 4, 6))
    gradient = torch.randn(3, 4, 6)
    parts = [torch.nn.Parameter(part.clone()) for part in whole.detach()]
    whole.grad = gradient
    for part, share in zip(parts, gradient, strict=True):
        part.grad = share
    Muon([whole], 1e-2, kernels=True).step()
    Muon(parts, 1e-2, kernels=True).step()
    torch.testing.assert_close(whole.detach(), torch.stack([part.detach() for part in parts]))
