import os
import subprocess
import sys

import pytest
import torch

from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.lidb import Basis, Factors, relax, truncate
from core.hyperdreambooth.model.target import Target

TARGETS = (Target("unet.wide", 120, 90), Target("unet.narrow", 8, 6))


def test_the_basis_is_orthonormal():
    factors = Basis(TARGETS, LidbConfig(seed=1))["unet.wide"]
    assert factors.left.shape == (120, 100)
    assert factors.right.shape == (50, 90)
    torch.testing.assert_close(factors.left.T @ factors.left, torch.eye(100), atol=1e-5, rtol=0)
    torch.testing.assert_close(factors.right @ factors.right.T, torch.eye(50), atol=1e-5, rtol=0)


def test_a_layer_narrower_than_the_basis_caps_it_at_its_width():
    factors = Basis(TARGETS, LidbConfig(seed=1))["unet.narrow"]
    assert factors.left.shape == (8, 8)
    assert factors.right.shape == (6, 6)


def test_the_basis_of_a_layer_depends_on_seed_name_and_shape_alone():
    several, alone = Basis(TARGETS, LidbConfig(seed=1)), Basis(TARGETS[1:], LidbConfig(seed=1))
    assert torch.equal(several["unet.narrow"].left, alone["unet.narrow"].left)
    assert not torch.equal(several["unet.narrow"].left, Basis(TARGETS, LidbConfig(seed=2))["unet.narrow"].left)


def test_the_basis_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Basis(TARGETS, LidbConfig(seed=1))
    assert torch.equal(torch.rand(1), expected)


def test_the_hash_is_pinned():
    """If this fails, weight files of earlier versions no longer open: raise the file format's version."""
    assert Basis(TARGETS, LidbConfig(seed=1)).hash == "e20c78be8de4cd56"


@pytest.mark.process
def test_another_process_with_another_thread_count_makes_the_same_basis():
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from core.hyperdreambooth.model.config import LidbConfig\n"
        "from core.hyperdreambooth.model.lidb import Basis\n"
        "from core.hyperdreambooth.model.target import Target\n"
        "print(Basis((Target('unet.wide', 120, 90), Target('unet.narrow', 8, 6)), LidbConfig(seed=1)).hash)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == Basis(TARGETS, LidbConfig(seed=1)).hash


def test_a_start_from_zero_changes_nothing_and_has_a_gradient():
    basis = Basis(TARGETS, LidbConfig(seed=1))
    start = basis.zeros(2, generator=torch.Generator().manual_seed(0))
    change = basis.merge(start)["unet.wide"]
    assert torch.count_nonzero(change.delta()) == 0
    assert torch.count_nonzero(change.right) > 0


def test_relaxing_the_rank_keeps_the_change():
    generator = torch.Generator().manual_seed(0)
    person = {"x": Factors(torch.randn(5, 2, generator=generator), torch.randn(2, 4, generator=generator))}
    relaxed = relax(person, 4, generator=generator)
    assert relaxed["x"].left.shape == (5, 4)
    torch.testing.assert_close(relaxed["x"].delta(), person["x"].delta())
    with pytest.raises(ValueError, match="lower rank"):
        relax(relaxed, 2, generator=generator)


def test_truncating_is_the_best_approximation_and_fills_up_with_zeros():
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(9, 4, generator=generator), torch.randn(4, 7, generator=generator))
    singular = torch.linalg.svdvals(factors.delta())
    error = (truncate(factors, 2).delta() - factors.delta()).norm()
    torch.testing.assert_close(error, singular[2:].square().sum().sqrt(), atol=1e-4, rtol=1e-4)
    wide = truncate(factors, 6)
    assert wide.left.shape == (9, 6)
    assert wide.right.shape == (6, 7)
    torch.testing.assert_close(wide.delta(), factors.delta(), atol=1e-5, rtol=1e-4)


def test_truncating_a_batch_is_truncating_each_of_it():
    generator = torch.Generator().manual_seed(0)
    batch = Factors(torch.randn(3, 9, 4, generator=generator), torch.randn(3, 4, 7, generator=generator))
    batched = truncate(batch, 2).delta()
    for number, delta in enumerate(batched):
        alone = truncate(Factors(batch.left[number], batch.right[number]), 2).delta()
        torch.testing.assert_close(delta, alone, atol=1e-5, rtol=1e-4)


def test_merging_is_the_paper_s_product():
    basis = Basis(TARGETS, LidbConfig(seed=1))
    person = {"unet.wide": Factors(torch.randn(100, 1), torch.randn(1, 50))}
    expected = basis["unet.wide"].left @ person["unet.wide"].delta() @ basis["unet.wide"].right
    torch.testing.assert_close(basis.merge(person)["unet.wide"].delta(), expected, atol=1e-4, rtol=1e-4)


def test_a_batch_merges_to_what_each_of_its_people_does():
    basis = Basis(TARGETS, LidbConfig(seed=1))
    people = basis.zeros(2, generator=torch.Generator().manual_seed(0), batch=(3,))
    people = {name: Factors(torch.randn_like(f.left), f.right) for name, f in people.items()}
    batched = basis.merge(people)
    for row in range(3):
        alone = basis.merge({name: Factors(f.left[row], f.right[row]) for name, f in people.items()})
        for name, factors in alone.items():
            torch.testing.assert_close(batched[name].left[row], factors.left, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(batched[name].right[row], factors.right, atol=1e-5, rtol=1e-5)


LAYERS = (*TARGETS, Target("unet.other", 120, 90), Target("unet.tall", 120, 6), Target("unet.last", 8, 90))


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("chosen", [LAYERS, LAYERS[:2], LAYERS[3:], ()])
def test_merging_is_each_layers_own_product_with_the_basis(batch, chosen):
    """Layers of equal and of other shapes, all of them or some, one person or several."""
    basis = Basis(LAYERS, LidbConfig(seed=1))
    generator = torch.Generator().manual_seed(0)
    factors = {
        layer.name: Factors(
            torch.randn(*batch, basis[layer.name].left.shape[1], 2, generator=generator),
            torch.randn(*batch, 2, basis[layer.name].right.shape[0], generator=generator),
        )
        for layer in reversed(chosen)
    }
    merged = basis.to("cpu").merge(factors)
    assert list(merged) == list(factors)
    for name, pair in factors.items():
        torch.testing.assert_close(merged[name].left, basis[name].left @ pair.left, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(merged[name].right, pair.right @ basis[name].right, atol=1e-5, rtol=1e-5)
