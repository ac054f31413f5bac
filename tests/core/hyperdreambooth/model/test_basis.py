import hashlib

import numpy as np
import pytest
import torch

from core.hyperdreambooth.model.basis import multiply_out, normal_matrices
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.lidb import Basis
from core.hyperdreambooth.model.target import Target

LIDB = LidbConfig(seed=3)


def by_torch(layer, lidb):
    """The numbers as torch draws them."""
    key = hashlib.sha256(f"{lidb.seed}/{layer.name}/{layer.n}x{layer.m}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)
    a, b = layer.capped(lidb.a, lidb.b)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in ((layer.n, a), (layer.m, b))
    ]


@pytest.mark.parametrize(("n", "m"), [(320, 320), (2560, 320), (33, 17), (5, 4), (7, 301)])
def test_the_numbers_are_those_of_torch(n, m):
    """Also where the count is no multiple of a block of 16."""
    layer = Target(f"unet.{n}", n, m)
    for ours, theirs in zip(normal_matrices(layer, LIDB), by_torch(layer, LIDB), strict=True):
        assert np.abs(ours - theirs).max() < 1e-14


@pytest.mark.parametrize(("n", "m"), [(640, 320), (64, 40), (16, 16)])
def test_multiplying_out_is_the_product_with_the_basis(n, m):
    layer, lidb = Target("unet.layer", n, m), LidbConfig()
    rng = np.random.default_rng(0)
    a, b = layer.capped(lidb.a, lidb.b)
    left, right = rng.normal(size=(a, 3)).astype(np.float32), rng.normal(size=(3, b)).astype(np.float32)
    outer_left, outer_right = multiply_out(layer, lidb, left, right)
    drawn = Basis([layer], lidb)[layer.name]
    np.testing.assert_allclose(outer_left, drawn.left.numpy() @ left, atol=1e-5)
    np.testing.assert_allclose(outer_right, right @ drawn.right.numpy(), atol=1e-5)


def test_a_layer_of_a_handful_of_numbers_has_no_basis():
    with pytest.raises(ValueError, match="too small"):
        normal_matrices(Target("unet.dot", 3, 3), LIDB)
