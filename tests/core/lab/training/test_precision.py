import pytest
import torch

from core.lab.training.precision import autocast, quickest


@pytest.mark.parametrize(("tiles", "dtype"), [(False, None), (True, torch.bfloat16)])
def test_halves_are_for_processors_that_have_units_for_them(monkeypatch, tiles, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert quickest(torch.device("cpu")) is dtype
    assert quickest(torch.device("cuda")) is torch.bfloat16


@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_layers_compute_in_what_was_asked_for(dtype, expected):
    layer = torch.nn.Linear(2, 2)
    with autocast(torch.device("cpu"), dtype):
        assert layer(torch.ones(1, 2)).dtype is expected
