"""The one training loop: resumable, seeded by step, with EMA, warm-up, a final decay, progress and a loss curve.

A checkpoint is a safetensors file (parameters, averages and optimiser moments) beside a JSON file; no pickle anywhere.
Every step draws from a generator seeded by (seed, step) alone, so that a resumed run sees what an unbroken one would.
A step may be cut into parts, each with a generator of its own: a process group shares them out and adds the
gradients up, so that how many processes there are does not change what is learnt.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from core.errors import BundleError
from core.hyperdreambooth.model.config import Optimizer
from core.hyperdreambooth.muon import Muon
from core.lab.training.process_group import SINGLE_PROCESS, GradientSum, ProcessGroup


@dataclass(frozen=True)
class Optimization:
    """How a stage is trained. ``decay`` is the share of the steps, at the end, in which the rate falls to zero.

    ``optimizer`` "muon" moves matrices and convolution kernels by Muon, and with AdamW only the vectors between them
    and tables of embeddings, of which a step sees a few rows; these at ``tables`` times the rate, as a word that is in
    one caption of a hundred would hardly leave its random start.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 1e-2
    warmup: int = 100
    decay: float = 0.3
    ema: float = 0.998
    clip: float = 1.0
    checkpoint_every: int = 200
    optimizer: Optimizer = "adamw"
    tables: float = 1.0

    def __post_init__(self) -> None:
        """Only optimizers that there are."""
        if self.optimizer not in get_args(Optimizer):
            raise BundleError(f"optimizer is one of {', '.join(get_args(Optimizer))}, not {self.optimizer!r}")

    def rate(self, step: int) -> float:
        """The learning rate's factor at a step: linear up, constant, then a half cosine down to 2 %."""
        start = self.steps * (1 - self.decay)
        up = min(1.0, (step + 1) / max(1, self.warmup))
        if step < start or self.decay == 0:
            return up
        return up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, self.steps - start))))


Losses = Mapping[str, Tensor]
"""Name -> scalar; ``loss`` is the one that is minimised."""


STATE = {Muon: ("velocity",), torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step")}
"""The state that an optimizer keeps for a parameter."""


class TrainingLoop:
    """Trains the parameters of named modules in ``folder``, where it also finds its own checkpoint again.

    ``parts`` is how many times ``losses`` is called in one step, by all processes of the ``group``; the step's
    loss is the mean. ``half`` scales the loss, as float16 needs it.
    """

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        optimization: Optimization,
        *,
        seed: int,
        name: str,
        group: ProcessGroup = SINGLE_PROCESS,
        parts: int = 1,
        half: bool = False,
    ) -> None:
        self.folder, self.config, self.seed, self.name = folder, optimization, seed, name
        self.group, self.parts = group, parts
        named = [(f"{key}.{n}", p) for key, module in modules.items() for n, p in module.named_parameters()]
        self.parameters = {n: p for n, p in named if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.device_type = next(iter(self.parameters.values())).device.type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=half)
        self.optimizers = _optimizers(modules, optimization)
        self.step = 0
        self._begun = time.monotonic()
        self._resume()

    @property
    def done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.config.steps

    def slow_down(self, module: str, share: float) -> None:
        """Let a module learn at this share of the learning rate."""
        for group in self._groups():
            if group["module"] == module:
                group["share"] = share

    def run(self, losses: Callable[[torch.Generator], Losses]) -> None:
        """Take the steps that are left. ``losses`` gets the own CPU generator of the step (or of its part).

        Raises:
            BundleError: the loss is no longer a number; the last checkpoint stays.
        """
        self._begun = time.monotonic()
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=self.name,
            unit="step",
            dynamic_ncols=True,
            disable=not self.group.first,
        )
        smooth: dict[str, float] = {}
        while not self.done:
            for key, value in self._take(losses).items():
                smooth[key] = value if key not in smooth else 0.98 * smooth[key] + 0.02 * value
            bar.set_postfix({key: f"{value:.4f}" for key, value in smooth.items()}, refresh=False)
            bar.update()
            if (self.step % 20 == 0 or self.done) and self.group.first:
                self._log(smooth)
            if (self.step % self.config.checkpoint_every == 0 or self.done) and self.group.first:
                self.save()
        bar.close()

    def dry_run(self, losses: Callable[[torch.Generator], Losses]) -> None:
        """Compute the next step's gradients and drop them, to measure what a step costs."""
        self._gradients(losses)
        self._forget()

    def use_average(self) -> None:
        """Put the averaged parameters into the modules: what a finished stage hands on."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])

    def save(self) -> None:
        """Write the checkpoint, atomically: a killed run leaves the one before."""
        tensors = {f"parameter/{n}": p.detach() for n, p in self.parameters.items()}
        tensors |= {f"average/{n}": p for n, p in self.average.items()}
        for optimizer, name, parameter in self._trained():
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"step": str(self.step), "scaler": json.dumps(self.scaler.state_dict())}
        save_whole(tensors, self.folder / "checkpoint.safetensors", metadata=metadata)
        (self.folder / "state.json").write_text(json.dumps({"step": self.step, "of": self.config.steps}))

    def _take(self, losses: Callable[[torch.Generator], Losses]) -> dict[str, float]:
        for group in self._groups():
            group["lr"] = group["share"] * group["times"] * self.config.learning_rate * self.config.rate(self.step)
        values = self._gradients(losses)
        if not math.isfinite(values["loss"]):
            raise BundleError(f"{self.name}: the loss of step {self.step} is not a number; lower the learning rate")
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.step += 1
        keep = min(self.config.ema, self.step / (self.step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - keep)
        return values

    def _gradients(self, losses: Callable[[torch.Generator], Losses]) -> dict[str, float]:
        """Leave the process group's gradients of the next step in the parameters; returns the mean of each loss."""
        self._forget()
        whole = GradientSum(self.parameters.values(), self.group, self.parts)
        with self._attention():
            for part in self.group.share(self.parts):
                values = losses(step_generator(self.seed, self.step, part))
                torch.autograd.backward(self.scaler.scale(values["loss"] / self.parts))
                if self.parts > 1:
                    whole.take({key: value / self.parts for key, value in values.items()})
        return whole.give() if self.parts > 1 else {key: float(value.detach()) for key, value in values.items()}

    def _attention(self) -> AbstractContextManager[None]:
        """On a CPU the plain attention is faster to train than the fused one (47 against 38 pictures/s at 64 px)."""
        return nullcontext() if self.device_type == "cuda" else sdpa_kernel(SDPBackend.MATH)

    def _resume(self) -> None:
        file = self.folder / "checkpoint.safetensors"
        if not file.is_file():
            return
        saved = load_file(file)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if f"parameter/{name}" not in saved:
                    continue
                parameter.copy_(saved[f"parameter/{name}"])
                self.average[name].copy_(saved[f"average/{name}"])
        with safe_open(file, framework="pt") as stream:
            metadata = stream.metadata()
        self.step = int(metadata["step"])
        self.scaler.load_state_dict(json.loads(metadata.get("scaler", "{}")) or self.scaler.state_dict())
        saved = {f"step/{name}": torch.tensor(float(self.step)) for name in self.parameters} | saved
        for optimizer, name, parameter in self._trained():
            kept = STATE[type(optimizer)]
            if all(f"{key}/{name}" in saved for key in kept):
                optimizer.state[parameter] = {key: saved[f"{key}/{name}"].to(parameter.device) for key in kept}

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for optimizer in self.optimizers for group in optimizer.param_groups)

    def _trained(self) -> Iterator[tuple[torch.optim.Optimizer, str, nn.Parameter]]:
        """Which optimizer moves which parameter."""
        names = {parameter: name for name, parameter in self.parameters.items()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                yield from ((optimizer, names[parameter], parameter) for parameter in group["params"])

    def _forget(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def _log(self, losses: Mapping[str, float]) -> None:
        """A line of the loss curve; seconds are those of this run, which may have gone on from a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "losses.csv"
        fresh = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(["step", "rows", "seconds", *losses])
            rows, seconds = self.step * self.config.batch, time.monotonic() - self._begun
            writer.writerow([self.step, rows, f"{seconds:.0f}", *(f"{value:.5f}" for value in losses.values())])


def _optimizers(modules: Mapping[str, nn.Module], config: Optimization) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for what has two dimensions or more and AdamW for the rest."""

    def groups(belongs: Callable[[nn.Parameter], bool], times: float = 1.0) -> list[dict[str, Any]]:
        by_module = {
            key: [p for p in module.parameters() if p.requires_grad and belongs(p)] for key, module in modules.items()
        }
        return [
            {"params": params, "module": key, "share": 1.0, "times": times}
            for key, params in by_module.items()
            if params
        ]

    def is_table(parameter: nn.Parameter) -> bool:
        return parameter in tables

    def by_muon(parameter: nn.Parameter) -> bool:
        return config.optimizer == "muon" and parameter.ndim > 1 and not is_table(parameter)

    tables = {m.weight for module in modules.values() for m in module.modules() if isinstance(m, nn.Embedding)}
    rate, decay = config.learning_rate, config.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if matrices := groups(by_muon):
        optimizers.append(Muon(matrices, rate, weight_decay=decay, kernels=True))
    if rest := groups(lambda p: not (by_muon(p) or is_table(p))) + groups(is_table, config.tables):
        optimizers.append(torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=decay, fused=True))
    return optimizers


def step_generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """The CPU generator of one step, or of a part of it: a function of (seed, step, part) alone."""
    digest = hashlib.sha256((f"{seed}/{step}/{part}" if part else f"{seed}/{step}").encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def save_whole(tensors: Mapping[str, Tensor], file: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all, also when the process is killed."""
    partial = file.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, partial, metadata=metadata)
    partial.replace(file)
