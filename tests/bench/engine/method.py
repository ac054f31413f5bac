"""The method alone, on this machine: opening people, batches of them, the share of what the processor can do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from core.hyperdreambooth.finetune import TrainingLatents, encode_training_pictures, finetune
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, from_bytes, merged_factors, to_bytes
from core.hyperdreambooth.formats.merged import MergedFactors
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import factors_of, generate, sample_latents
from core.settings import EMBEDDED_BUNDLE
from tests.bench.engine.shapes import NARROW_SHAPE, SHAPES, Shape, plain, random_bundle, someone
from tests.bench.engine.timing import Line, interleaved, line, ratios

PEOPLE = 8
_MATMUL = 1024


def opening(rounds: int, shape: Shape = SHAPES[0]) -> list[Line]:
    """A person's file to factors, in time of the processor. The UNet has no numbers: opening reads none of them."""
    bundle = random_bundle(shape, device="meta")
    held = _OnCpu(**{each.name: getattr(bundle, each.name) for each in fields(bundle)})
    held.__dict__["fingerprint"] = bundle.fingerprint
    data = to_bytes(someone(held, seed=1))
    taken = interleaved({"open": lambda: merged_factors(from_bytes(data), held)}, rounds, clock=time.process_time)[
        "open"
    ]
    return [line("opening a person, SD 1.5's shape", "ms", [1000 * each for each in taken], target=10)]


class _OnCpu(Bundle):
    """A bundle whose base model is nowhere and whose people are on the CPU."""

    @property
    def device(self) -> torch.device:
        """See Bundle."""
        return torch.device("cpu")


def different_people(bundle: Bundle, rounds: int, *, steps: int) -> list[Line]:
    """Eight people in one batch over eight rows of one person; pictures in bf16 over those in fp32."""
    people = [someone(bundle, seed=number) for number in range(PEOPLE)]
    rows = {
        "different": [Row("a [V] face", weights=each, seed=number) for number, each in enumerate(people)],
        "same": [Row("a [V] face", weights=people[0], seed=number) for number in range(PEOPLE)],
    }
    pictures = {}

    def draw(of: str, dtype: torch.dtype | None = None) -> None:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            pictures[of if dtype is None else "bf16"] = generate(bundle, rows[of], steps=steps)

    taken = interleaved(
        {
            "different": lambda: draw("different"),
            "same": lambda: draw("same"),
            "bf16": lambda: draw("different", torch.bfloat16),
        },
        rounds,
    )
    apart = (pictures["bf16"].float() - pictures["different"].float()).square().mean().item()
    return [
        line("eight people in one batch / eight rows of one", "x", ratios(taken, "different", "same"), target=1.10),
        line("the same in bfloat16 / in float32", "x", ratios(taken, "bf16", "different")),
        line("pictures in bfloat16, against float32", "dB", [10 * math.log10(255**2 / max(apart, 1e-9))]),
    ]


def residents(bundle: Bundle, rounds: int, counts: tuple[int, ...] = (10, 100, 1000)) -> list[Line]:
    """The time of a step of eight people, found among so many that are open, and what each of them takes."""
    quick, size = plain(bundle, steps=1), (bundle.resolution, bundle.resolution)
    people = [someone(bundle, seed=number) for number in range(max(counts))]
    rows = [Row("a [V] face", weights=each, seed=number) for number, each in enumerate(people[:PEOPLE])]
    cases: dict[str, Callable[[], object]] = {}
    for count in counts:
        opened = MergedFactors(most=count, seconds=3600.0)
        for person in people[:count]:
            opened(person, bundle)

        def step(opened: MergedFactors = opened) -> None:
            sample_latents(quick, rows, factors_of(quick, rows, opened), steps=1, size=size)

        cases[f"{count:,}"] = step
    taken = interleaved(cases, rounds)
    first, *_, last = taken
    took = sum(4 * (pair.left.numel() + pair.right.numel()) for pair in opened(people[0], bundle).values())
    return [
        *[line(f"a step of eight people, {name} open", "ms", [1000 * each for each in taken[name]]) for name in taken],
        line(f"that step, {last} open / {first}", "x", ratios(taken, last, first), target=1.05),
        line("memory of an open person", "KB", [took / 1024]),
    ]


def shares(bundle: Bundle, rounds: int) -> tuple[list[Line], dict[str, Any]]:
    """How much of a large matmul's rate sampling and finetuning reach, and which operators take their time."""
    matrix, out = torch.randn(_MATMUL, _MATMUL), torch.empty(_MATMUL, _MATMUL)
    weights = someone(bundle, seed=1)
    rows = [Row("a [V] face", weights=weights, seed=number) for number in range(PEOPLE)]
    quick, tune = plain(bundle, steps=1), tuning(bundle)
    factors = factors_of(quick, rows)
    size = (bundle.resolution, bundle.resolution)

    def sample() -> None:
        sample_latents(quick, rows, factors, steps=1, size=size)

    cases: dict[str, Callable[[], object]] = {
        "matmul": lambda: torch.matmul(matrix, matrix, out=out),
        "sampling": sample,
        "finetuning": tune,
    }
    taken = interleaved(cases, rounds)
    lines, operators = [], {}
    for name, target in (("sampling", 0.50), ("finetuning", 0.45)):
        count, convolutions = _operations(cases[name])
        share = [
            count / seconds / (2 * _MATMUL**3 / peak)
            for seconds, peak in zip(taken[name], taken["matmul"], strict=True)
        ]
        profiles = [_profile(cases[name]) for _ in range(rounds)]
        operators[name] = profiles[0][0]
        reached = [count / convolutions * of_convolutions for _, of_convolutions in profiles]
        what = f"{name}: share of what its convolutions reach alone"
        lines.append(line(f"{name}: share of the rate of a matmul", "x", share))
        lines.append(line(what, "x", reached, target=target, more=True))
    return lines, {"operators": operators}


def tuning(bundle: Bundle, steps: int = 1) -> Callable[[], object]:
    """So many finetuning steps of one person."""
    config = replace(bundle.config.finetune, steps=steps)
    latents = _latents(bundle)
    start = bundle.basis.zeros(1, generator=torch.Generator().manual_seed(0), batch=(1,))
    return lambda: finetune(bundle, latents, start, config, generator=torch.Generator().manual_seed(0))


def kernels() -> list[Line]:
    """What a finetuning step of SD 1.5's layers asks of torch; counted on ones an eighth as wide."""
    bundle = random_bundle(NARROW_SHAPE)
    one, two = _Count(), _Count()
    for steps, counter in ((1, one), (2, two)):
        tune = tuning(bundle, steps)
        with counter:
            tune()
    return [
        line("kernels in a finetuning step, SD 1.5's layers", "", [two.kernels - one.kernels], target=1500),
        line("dispatches in it", "", [two.calls - one.calls]),
    ]


def face(side: int) -> torch.Tensor:
    """The demo's photo: uint8, 1 x side x side x 3."""
    with Image.open(EMBEDDED_BUNDLE / "demo-face.png") as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB").resize((side, side))).copy())[None]


def people_of(bundle: Bundle) -> list[LidbWeights]:
    """Eight people of random weights that change pictures little."""
    return [someone(bundle, seed=number, strength=0.1) for number in range(PEOPLE)]


def _latents(bundle: Bundle) -> TrainingLatents:
    return encode_training_pictures(bundle, face(bundle.resolution)[None], bundle.config.finetune)


def _operations(case: Callable[[], object]) -> tuple[float, float]:
    """Multiplications and additions: all, and those of convolutions."""
    with FlopCounterMode(display=False) as counter:
        case()
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.values()), sum(count for of, count in counts.items() if "convolution" in str(of))


def _profile(case: Callable[[], object]) -> tuple[list[tuple[str, float]], float]:
    """The eight operators that take most of the time, with their shares of it; the share of all convolutions."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        case()
        seconds = time.perf_counter() - began
    averages = seen.key_averages()
    whole = sum(each.self_cpu_time_total for each in averages)
    found = sorted(averages, key=lambda each: -each.self_cpu_time_total)[:8]
    alone = sum(each.self_cpu_time_total for each in averages if "conv" in each.key) / 1e6
    return [(each.key, round(each.self_cpu_time_total / whole, 3)) for each in found], alone / seconds


class _Count(TorchDispatchMode):
    """Counts calls into torch, and kernels: those that make no view of a tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = self.kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += 1
        returns = func._schema.returns
        is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        self.kernels += not is_view and "empty" not in func.name() and "detach" not in func.name()
        return func(*args, **(kwargs or {}))
