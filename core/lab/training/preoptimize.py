"""Stage three: pre-optimised weights w* of many people, a group of them in one batch.

Each row of the batch carries its own person's factors while the base is shared, so that a step costs one pass for the
whole group: that is what makes the paper's 50 GPU-days affordable. Starts from the hypernetwork's prediction if it
has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from core.hyperdreambooth.finetune import TrainingLatents, finetune
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.prediction import face_pixels
from core.lab.training.loop import save_whole, step_generator
from core.lab.training.process_group import SINGLE_PROCESS, ProcessGroup
from core.lab.training.recipe import Preoptimize

REFERENCE_WEIGHTS = "targets.safetensors"
"""The file of a finished stage."""

ReferenceWeights = Mapping[str, Tensor]
"""``pictures``: the index of each picture; ``<target>/left`` and ``/right``: its factors, stacked. Empty: there are
none.
"""


Load = Callable[[np.ndarray], tuple[Tensor, Tensor]]
"""The pictures of some numbers (uint8, ``n h w 3``) and their latents."""


def preoptimize(
    bundle: Bundle, pictures: int, load: Load, config: Preoptimize, folder: Path, team: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Write ``REFERENCE_WEIGHTS``, from ``pictures`` pictures in all; groups that an interrupted run finished are kept.

    The processes of a ``team`` share the groups out; ``folder`` is one that all of them see.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = people_groups(pictures, config)
    for number in tqdm(team.share(len(groups)), desc="preoptimize", unit="group", disable=not team.first):
        file = folder / f"group-{number}.safetensors"
        if not file.is_file():
            save_whole(optimize_group(bundle, load, config, groups[number], number), file)
    team.wait()
    if team.first:
        parts = [load_file(folder / f"group-{number}.safetensors") for number in range(len(groups))]
        save_whole({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, folder / REFERENCE_WEIGHTS)
    team.wait()


def people_groups(pictures: int, config: Preoptimize) -> list[np.ndarray]:
    """The numbers of the chosen pictures, evenly over all of them, group by group."""
    chosen = np.linspace(0, pictures - 1, min(config.people, pictures)).astype(int)
    return [chosen[start : start + config.group] for start in range(0, len(chosen), config.group)]


def optimize_group(
    bundle: Bundle,
    load: Load,
    config: Preoptimize,
    group: np.ndarray,
    number: int,
    *,
    on_step: Callable[[int, int, LayerFactors], None] | None = None,
) -> dict[str, Tensor]:
    """The weights of one group's people, from the hypernetwork's prediction on."""
    assert bundle.hypernetwork is not None
    photos, plain = load(group)
    with torch.no_grad():
        start = bundle.hypernetwork(face_pixels(bundle, bundle.hypernetwork, photos))
    rank = bundle.hypernetwork.config.rank
    settings = FinetuneConfig(rank=rank, steps=config.steps, learning_rate=config.learning_rate, rows=config.rows)
    plain = plain.to(bundle.device, torch.float32)
    shown = TrainingLatents(plain[:, None], plain[:, None][:, :0])
    generator = step_generator(1, number)
    people = finetune(bundle, shown, start, settings, generator=generator, on_step=on_step).factors
    tensors = {"pictures": torch.from_numpy(group)}
    for name, factors in people.items():
        tensors[f"{name}/left"], tensors[f"{name}/right"] = factors.left.cpu(), factors.right.contiguous().cpu()
    return tensors
