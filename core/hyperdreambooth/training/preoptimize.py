"""Stage three: pre-optimised weights w* of many people, a group of them in one batch.

Each row of the batch carries its own person's factors while the base is shared, so that a step costs one pass for the
whole group: that is what makes the paper's 50 GPU-days affordable. Starts from the hypernetwork's prediction if it
has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from core.hyperdreambooth.config import FinetuneConfig
from core.hyperdreambooth.diffusion import Bundle, to_pixels
from core.hyperdreambooth.finetune import Shown, finetune
from core.hyperdreambooth.training.data import Faces, LatentCache
from core.hyperdreambooth.training.loop import step_generator
from core.hyperdreambooth.training.recipe import Preoptimize

TARGETS = "targets.safetensors"
"""The file of a finished stage."""

Targets = Mapping[str, Tensor]
"""``pictures``: the index of each picture; ``<target>/left`` and ``/right``: its factors, stacked. Empty: there are
none.
"""


def preoptimize(bundle: Bundle, faces: Faces, latents: LatentCache, config: Preoptimize, folder: Path) -> None:
    """Write ``TARGETS``; groups that an interrupted run finished are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(faces) - 1, config.people).astype(int)
    groups = [chosen[start : start + config.group] for start in range(0, len(chosen), config.group)]
    for number, group in enumerate(tqdm(groups, desc="preoptimize", unit="group")):
        file = folder / f"group-{number}.safetensors"
        if not file.is_file():
            save_file(_optimize(bundle, faces, latents, config, group, number), file)
    parts = [load_file(folder / f"group-{number}.safetensors") for number in range(len(groups))]
    save_file({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, folder / TARGETS)


def _optimize(
    bundle: Bundle, faces: Faces, latents: LatentCache, config: Preoptimize, group: np.ndarray, number: int
) -> dict[str, Tensor]:
    assert bundle.hypernetwork is not None
    with torch.no_grad():
        pixels = to_pixels(torch.from_numpy(faces.pictures[group])).to(bundle.device)
        start = bundle.hypernetwork(pixels)
    rank = bundle.hypernetwork.config.rank
    settings = FinetuneConfig(
        rank=rank, steps=config.steps, learning_rate=config.learning_rate, rows=config.rows, relaxation="lidb"
    )
    plain = latents.plain[torch.from_numpy(group), 0].to(bundle.device, torch.float32)
    shown = Shown(plain[:, None], plain[:, None][:, :0])
    people = finetune(bundle, shown, start, settings, generator=step_generator(1, number)).person
    tensors = {"pictures": torch.from_numpy(group)}
    for name, factors in people.items():
        tensors[f"{name}/left"], tensors[f"{name}/right"] = factors.left.cpu(), factors.right.contiguous().cpu()
    return tensors
