"""The figures of the engine can be measured, on small models; what they are is the machine's affair."""

from __future__ import annotations

import json
import math

import pytest
import torch

from core.lab.testing import random_bundle
from tests.bench.engine import __main__ as command
from tests.bench.engine import gpu, method, peers, report, shapes, timing, worker
from worker.testing import FakeEngine

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TINY = shapes.Shape("tiny", UNET, 64, width=16, layers=1, tokens=16)


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


def in_order(lines: list[timing.Line]) -> None:
    assert lines
    for each in lines:
        assert 0 < each.low <= each.median <= each.high < math.inf, each


def test_the_method_is_measured(bundle):
    in_order(method.opening(2, TINY))
    in_order(method.different_people(bundle, 1, steps=1))
    lines, more = method.shares(bundle, 1)
    in_order(lines)
    assert all(0 < share <= 1 for shares in more["operators"].values() for _, share in shares)
    lines = method.residents(bundle, 1, (1, 9))
    in_order(lines)
    ranks = 4 * sum(target.n + target.m for target in bundle.targets)
    assert lines[-1].median == pytest.approx(4 * ranks / 1024, rel=1e-3)


def test_kernels_are_counted_and_views_are_none():
    counter = method._Count()
    with counter:
        (torch.ones(2, 2).T @ torch.ones(2, 2)).view(4)
    assert (counter.calls, counter.kernels) == (5, 3)


def test_the_worker_is_measured():
    with worker.bench(FakeEngine) as held:
        lines, more = worker.everything(held, 1, people=2, waiting=(1, 3))
    in_order([each for each in lines if "engine's own" not in each.what])
    assert [row["waiting"] for row in more["waiting"]] == [1, 3]


def test_diffusers_draws_the_same_people(bundle):
    in_order(peers.against_diffusers(bundle, 1, steps=1))


def test_without_peft_a_sentence_says_what_to_do(bundle, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert peers.against_diffusers(bundle, 1, steps=1) == []
    assert capsys.readouterr().out == f"{peers.MISSING}\n"


def test_cases_take_turns():
    order: list[str] = []
    taken = timing.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == list("ab" + "ab" + "ba")
    assert {name: len(each) for name, each in taken.items()} == {"a": 2, "b": 2}


def test_the_page_says_what_was_measured_and_what_is_missed():
    lines = [
        timing.line("a", "ms", [1.0, 2.0, 3.0, 4.0], target=1),
        timing.line("b", "x", [0.9], target=0.5, more=True),
    ]
    figures = timing.as_json(lines, operators={"sampling": [("aten::mm", 0.5)]}, waiting=[], seconds=3)
    page = report.page(json.loads(json.dumps(figures)))
    assert "| a | 2.5 ms | 1.25 to 3.75 | at most 1 |" in page
    assert "| b | 0.9 |  | at least 0.5 |" in page
    assert "The largest gap: a, 2.5 times its target." in page
    assert "`aten::mm` 50%" in page
    assert "Not run yet" in page


def test_the_page_is_that_of_its_figures():
    text = report.FIGURES.with_suffix(".md").read_text()
    assert text == report.written(), "python -m tests.bench.engine.report"
    assert len(text.split()) <= 700


def test_one_part_can_be_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(command.method, "kernels", lambda: [timing.line("kernels", "", [7])])
    monkeypatch.setattr("sys.argv", ["bench", "--only", "kernels", "--output", str(tmp_path / "made.json")])
    assert command.main() == 0
    assert [each["what"] for each in json.loads((tmp_path / "made.json").read_text())["lines"]] == ["kernels"]


def test_without_a_gpu_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench-gpu"])
    assert gpu.main() == 1
    assert capsys.readouterr().err == f"{gpu.NO_GPU}\n"


@pytest.mark.parametrize("shape", [TINY, gpu.NARROW_TRANSFORMER], ids=lambda shape: shape.name)
def test_what_a_gpu_measures_runs_on_a_processor(shape):
    in_order(gpu.figures_of(shape, device="cpu", rounds=1, steps=2, finetuning=2))
