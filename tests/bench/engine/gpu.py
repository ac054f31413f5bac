"""The engine on a GPU, in at most ten minutes (`make bench-gpu`): python -m tests.bench.engine.gpu

Needs a GPU, the repository, torch, diffusers and transformers; peft for the comparison with diffusers. The weights are
random, in the real shapes of Stable Diffusion 1.5, SDXL and a transformer (PixArt).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from core.hyperdreambooth.formats.lidb_weights import merged_factors
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import factors_of, generate, sample_latents
from tests.bench.engine import peers, report, timing
from tests.bench.engine.method import PEOPLE, tuning
from tests.bench.engine.shapes import SHAPES, Shape, plain, random_bundle, someone
from tests.bench.engine.timing import Line, interleaved, line, ratios

NO_GPU = "There is no GPU that torch can use here, so nothing was measured."
SECONDS = 540.0
"""After so long no other shape is begun."""
_PIXART = {"sample_size": 64, "out_channels": 8, "num_layers": 28, "cross_attention_dim": 1152}
TRANSFORMER = Shape("PixArt", {**_PIXART, "caption_channels": 4096}, 512, width=4096, layers=1, tokens=120)
_NARROW = {
    "sample_size": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "caption_channels": 96,
}
NARROW_TRANSFORMER = Shape(
    "narrow transformer", {"out_channels": 8, "cross_attention_dim": 32, **_NARROW}, 64, width=96, layers=2, tokens=16
)
TARGETS = {
    "Stable Diffusion 1.5, personalizing, 40 steps": 1.5,
    "Stable Diffusion 1.5, a picture, 30 steps, bfloat16": 0.35,
}


class TransformerAsUNet(nn.Module):
    """A diffusion transformer that is called as a UNet; of its output the half that is the noise."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        inner: Any = PixArtTransformer2DModel(norm_type="ada_norm_single", use_additional_conditions=False, **config)
        self.transformer_blocks = inner.transformer_blocks  # the names that targets have
        self._inner: list[Any] = [inner]  # no module of this one: its parts are
        self.rest = nn.ModuleDict({name: part for name, part in inner.named_children() if name != "transformer_blocks"})
        self.table = inner.scale_shift_table
        sides = (1, 1)  # pictures are multiples of two places: a patch
        self.config = SimpleNamespace(in_channels=4, block_out_channels=sides, cross_attention_dim=96)

    @property
    def dtype(self) -> torch.dtype:
        """That of its weights."""
        kept: torch.dtype = self.table.dtype
        return kept

    def forward(
        self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: object = None
    ) -> SimpleNamespace:
        """Noise, as a UNet's output."""
        inner = self._inner[0]
        inner.scale_shift_table = self.table
        output = inner(noisy, encoder_hidden_states=encoder_hidden_states, timestep=timesteps).sample
        return SimpleNamespace(sample=output.chunk(2, dim=1)[0])


def bundle_of(shape: Shape, device: str) -> Bundle:
    """A bundle of this shape on the device; that of a transformer where its configuration is one's."""
    make = TransformerAsUNet if "caption_channels" in shape.unet else None
    return random_bundle(shape, device=device, unet=make)


def figures_of(shape: Shape, *, device: str, rounds: int, steps: int, finetuning: int) -> list[Line]:
    """All figures of one shape; `steps` are of a picture, `finetuning` of a person."""
    bundle = bundle_of(shape, device)
    people = [someone(bundle, seed=number, strength=0.1) for number in range(PEOPLE)]
    rows = [Row("a [V] face", weights=each, seed=number) for number, each in enumerate(people)]
    same = [Row("a [V] face", weights=people[0], seed=number) for number in range(PEOPLE)]
    size = (shape.side, shape.side)
    end = _end(device)

    def step_of(chosen: list[Row[Any]], *, precise: bool = False) -> Callable[[], object]:
        quick, factors = plain(bundle, steps=1), factors_of(bundle, chosen)

        def step() -> None:
            with _half(device, enabled=not precise):
                sample_latents(quick, chosen, factors, steps=1, size=size)

        return step

    def picture(chosen: list[Row[Any]]) -> None:
        with _half(device, enabled=True):
            generate(bundle, chosen, steps=steps)

    taken = interleaved(
        {
            "different": step_of(rows),
            "same": step_of(same),
            "alone": step_of(rows[:1]),
            "float32": step_of(rows, precise=True),
            "open": lambda: merged_factors(people[0], bundle),
        },
        rounds,
        end=end,
    )
    long = interleaved({"picture": lambda: picture(rows[:1]), "tune": tuning(bundle, finetuning)}, 1, end=end)
    one_by_one = [PEOPLE * alone / all_ for alone, all_ in zip(taken["alone"], taken["different"], strict=True)]

    def called(what: str, unit: str, values: list[float], *, target: float | None = None, more: bool = False) -> Line:
        name = f"{shape.name}, {what}"
        return line(name, unit, values, target=TARGETS.get(name, target), more=more)

    lines = [
        called("opening a person", "ms", [1000 * each for each in taken["open"]]),
        called("eight people in one step / eight rows of one", "x", ratios(taken, "different", "same"), target=1.05),
        called("eight people one by one / in one step", "x", one_by_one, target=3, more=True),
        called("a step of eight in bfloat16 / in float32", "x", ratios(taken, "different", "float32")),
        called(f"a picture, {steps} steps, bfloat16", "s", long["picture"]),
        called(f"personalizing, {finetuning} steps", "s", long["tune"]),
    ]
    if device != "cpu":
        memory = torch.cuda.max_memory_allocated() / 2**30
        lines.append(called("most memory of all that", "GB", [memory]))
        torch.cuda.reset_peak_memory_stats()
    return lines


def main() -> int:
    """The command line: 1 without a GPU."""
    parser = argparse.ArgumentParser(prog="tests.bench.engine.gpu", description="How fast the engine is on a GPU.")
    parser.add_argument("--output", type=Path, default=report.GPU_FIGURES)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 1
    began, lines = time.monotonic(), list[Line]()
    for shape in (SHAPES[0], TRANSFORMER, SHAPES[1]):
        if time.monotonic() - began > SECONDS:
            print(f"{shape.name} was left out: {SECONDS:.0f} s are over")
            continue
        found = figures_of(shape, device="cuda", rounds=asked.rounds, steps=30, finetuning=40)
        if shape is SHAPES[0]:
            found += peers.against_diffusers(bundle_of(shape, "cuda"), 2, steps=10, target=0.33)
        lines += found
        print("\n".join(map(report.told, found)), flush=True)
        seconds = round(time.monotonic() - began)
        asked.output.write_text(json.dumps(timing.as_json(lines, seconds=seconds), indent=1) + "\n")
    return 0


def _half(device: str, *, enabled: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def _end(device: str) -> Callable[[], float]:
    def end() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    return end


if __name__ == "__main__":
    sys.exit(main())
