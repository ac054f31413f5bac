import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import BundleError
from core.lab.training.loop import Optimization, TrainingLoop, step_generator

CONFIG = Optimization(steps=12, batch=4, learning_rate=0.05, warmup=2, checkpoint_every=5)


def fresh() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def train(
    folder: Path,
    model: nn.Module,
    *,
    until: int | None = None,
    config: Optimization = CONFIG,
    shape: tuple[int, ...] = (3,),
) -> TrainingLoop:
    """A model of ``shape`` to one number learns the sum of what it is given."""
    loop = TrainingLoop(folder, {"m": model}, config, seed=1, name="test")

    def losses(generator: torch.Generator) -> dict[str, torch.Tensor]:
        if until is not None and loop.step == until:
            raise KeyboardInterrupt
        x = torch.randn(config.batch, *shape, generator=generator)
        loss = (model(x) - x.flatten(1).sum(1, keepdim=True)).square().mean()
        return {"loss": loss, "same": loss}

    loop.run(losses)
    return loop


def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path):
    unbroken = fresh()
    train(tmp_path / "unbroken", unbroken)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", fresh(), until=8)
    resumed = fresh()
    loop = train(tmp_path / "broken", resumed)
    torch.testing.assert_close(resumed.weight, unbroken.weight)
    assert loop.done
    assert json.loads((tmp_path / "broken/state.json").read_text())["step"] == CONFIG.steps


def test_a_run_with_muon_resumes_as_well_and_moves_vectors_by_adamw(tmp_path):
    """Matrices and kernels, of several memory formats, and vectors between them."""

    def model() -> nn.Sequential:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 1))
        return layers.to(memory_format=torch.channels_last)

    run = partial(train, config=replace(CONFIG, optimizer="muon"), shape=(2, 5, 5))
    unbroken, resumed = model(), model()
    run(tmp_path / "unbroken", unbroken)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", model(), until=8)
    loop = run(tmp_path / "broken", resumed)
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict())
    muon, adamw = loop.optimizers
    assert {parameter.ndim for parameter in muon.state} == {2, 4}
    assert {parameter.ndim for parameter in adamw.state} == {1}


def test_the_average_is_what_a_stage_hands_on(tmp_path):
    model = fresh()
    loop = train(tmp_path, model)
    last = model.weight.detach().clone()
    loop.use_average()
    assert not torch.equal(model.weight, last)
    torch.testing.assert_close(model.weight, last, atol=0.5, rtol=0)


def test_the_rate_warms_up_stays_and_falls():
    config = Optimization(steps=100, batch=1, learning_rate=1.0, warmup=10, decay=0.5)
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(30) == 1.0
    assert config.rate(75) == pytest.approx(0.51)
    assert config.rate(99) < 0.03
    assert replace(config, decay=1.0).rate(0) == pytest.approx(0.1, rel=1e-3)
    assert replace(config, warmup=0).rate(0) == 1.0


def test_a_module_may_learn_at_a_share_of_the_rate(tmp_path):
    def learnt(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = fresh(), fresh()
        loop = TrainingLoop(tmp_path / str(share), {"one": one, "other": other}, CONFIG, seed=1, name="test")
        loop.slow_down("other", share)
        loop.run(lambda _: {"loss": (one.weight + other.weight).sum()})
        return one.weight - fresh().weight, other.weight - fresh().weight

    for share in (1.0, 0.25, 0.0):
        one, other = learnt(share)
        torch.testing.assert_close(other, share * one, atol=2e-3, rtol=0)


def test_a_step_s_generator_depends_on_seed_and_step_alone():
    assert torch.equal(torch.rand(2, generator=step_generator(1, 5)), torch.rand(2, generator=step_generator(1, 5)))
    assert not torch.equal(torch.rand(2, generator=step_generator(1, 5)), torch.rand(2, generator=step_generator(1, 6)))


@pytest.mark.parametrize("half", [False, True])
def test_parts_of_a_step_are_one_batch_also_with_a_scaled_loss_and_after_a_kill(tmp_path, half):
    def learn(folder, *, parts: int, until: int | None = None) -> torch.Tensor:
        model = fresh()
        loop = TrainingLoop(folder, {"m": model}, CONFIG, seed=1, name="test", parts=parts, half=half)
        rows = torch.arange(12.0).view(4, 3) / 12
        asked = iter(range(loop.step * parts, 1000))

        def losses(_generator: torch.Generator) -> dict[str, torch.Tensor]:
            turn = next(asked)
            if until is not None and turn // parts == until:
                raise KeyboardInterrupt
            x = rows.chunk(parts)[turn % parts]
            return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

        loop.run(losses)
        return model.weight.detach()

    whole = learn(tmp_path / "whole", parts=1)
    torch.testing.assert_close(learn(tmp_path / "parts", parts=2), whole)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "killed", parts=2, until=7)
    torch.testing.assert_close(learn(tmp_path / "killed", parts=2), whole)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    model = fresh()
    loop = TrainingLoop(tmp_path, {"m": model}, CONFIG, seed=1, name="test")
    with pytest.raises(BundleError, match="not a number"):
        loop.run(lambda generator: {"loss": model.weight.sum() * float("nan")})


def test_a_rehearsal_teaches_nothing(tmp_path):
    model = fresh()
    before = model.weight.detach().clone()
    loop = TrainingLoop(tmp_path, {"m": model}, CONFIG, seed=1, name="test", parts=2)
    loop.rehearse(lambda generator: {"loss": model.weight.square().sum()})
    assert torch.equal(model.weight, before)
    assert loop.step == 0
    assert model.weight.grad is None
