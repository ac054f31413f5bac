"""A hypernetwork for a base model that is given, on many devices: ``accelerate launch -m
core.lab.training.distributed RECIPE.toml [--estimate] [--device auto]``.

Measures a few steps and says how many GPU-hours the whole will take (``--estimate`` stops there), pre-optimises where
the recipe asks for it, trains the hypernetwork and writes the bundle. Killed and started again it goes on from its
checkpoint, with the same number of processes or another one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from safetensors.torch import load_file

from core.errors import BundleError
from core.hyperdreambooth.model.hypernetwork import new_hypernetwork
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.training.data import Faces, decode_picture
from core.lab.training.estimate import Estimate, measure_group, measure_steps
from core.lab.training.export import export_bundle, sample_sheet
from core.lab.training.hypernetwork import hypernetwork_losses
from core.lab.training.loop import Losses, TrainingLoop
from core.lab.training.preoptimize import REFERENCE_WEIGHTS, people_groups, preoptimize
from core.lab.training.process_group import ProcessGroup
from core.lab.training.recipe import LargeRecipe, load_large_recipe
from core.lab.training.rows import Mix
from core.lab.training.shards import identity_labels, open_shards, pictures_at
from core.lab.training.stream import Plan, Slice, Stream, to_rows

logger = logging.getLogger(__name__)

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""accelerate's names of the precisions, as torch's autocast takes them."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the last group of pre-optimisation, the joining of all of them."""


class DistributedRun:
    """One process's share of a recipe: the frozen base, the network under training, and the files."""

    def __init__(self, recipe: LargeRecipe, accelerator: Accelerator) -> None:
        self.recipe, self.team = recipe, ProcessGroup(accelerator)
        if accelerator.mixed_precision not in PRECISIONS:
            raise BundleError(f"precision is one of {', '.join(PRECISIONS)}, not {accelerator.mixed_precision}")
        self.precision = PRECISIONS[accelerator.mixed_precision]
        self.work = recipe.path(recipe.work)
        patterns = [recipe.path(name) for name in recipe.data.train]
        self.shards = open_shards(sorted({file for path in patterns for file in path.parent.glob(path.name)}))
        self.pictures = sum(shard.rows for shard in self.shards)
        labels = identity_labels(self.shards) if recipe.hypernetwork.identity else {}
        config = recipe.hypernetwork
        self.plan = Plan(
            seed=recipe.seed,
            slices=recipe.slices,
            rows=recipe.slice,
            buffer=recipe.data.buffer,
            mix=Mix(config.photo, config.empty, 1.0, config.other_photo),
            styles=recipe.data.styles,
            resolution=recipe.bundle.resolution,
            identifier=recipe.bundle.identifier,
            class_noun=recipe.bundle.class_noun,
            labels=labels,
            warped=config.warped,
        )
        bundle = replace(load_bundle(self.base, device="cpu"), config=recipe.bundle)
        network = new_hypernetwork(recipe.network, bundle.shapes, seed=recipe.seed, identities=len(labels))
        self.network = network.to(accelerator.device)
        self.bundle = replace(bundle, hypernetwork=self.network)
        self.bundle.vae.to(accelerator.device)
        halved = self.precision if accelerator.device.type == "cuda" else None
        for module in self.bundle.components.values():
            module.to(accelerator.device, halved)
        self.loop = TrainingLoop(
            self.work / "hypernetwork",
            {"network": self.network},
            config.optimization,
            seed=recipe.seed,
            name="hypernetwork",
            team=self.team,
            parts=recipe.slices,
            half=self.precision is torch.float16,
        )
        self.team.agree(self.loop.step, "checkpoint")
        self.slices: Iterator[Slice] = iter(())
        if not self.loop.done:
            stream = Stream(
                self.shards, self.plan, step=self.loop.step, process=self.team.index, processes=self.team.size
            )
            self.slices = stream.load(recipe.data.readers)

    @property
    def base(self) -> str:
        """The base model: a folder beside the recipe, or a hub id."""
        folder = self.recipe.path(self.recipe.base)
        return str(folder) if folder.is_dir() else self.recipe.base

    def estimate(self) -> Estimate:
        """Measure what is left. The slices that this takes are given out again afterwards."""
        taken: list[Slice] = []

        def kept() -> Iterator[Slice]:
            for each in self.slices:
                taken.append(each)
                yield each

        fresh = kept()
        seconds = 0.0 if self.loop.done else measure_steps(self.loop, lambda g: self._losses(next(fresh), {}, g))
        self.slices = chain(taken, self.slices)
        groups, group_seconds = self._groups_left(), 0.0
        config = self.recipe.preoptimize
        if groups and config is not None:
            group_seconds = measure_group(self.bundle, self._load, config, people_groups(self.pictures, config)[0])
        device = self.bundle.device
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        steps = self.loop.config.steps - self.loop.step
        return Estimate(steps, seconds, groups, group_seconds, self.team.size, device.type, memory)

    def train(self) -> None:
        """What is left of both stages."""
        known = {}
        if self.recipe.preoptimize is not None:
            folder = self.work / "preoptimize"
            self.network.eval().requires_grad_(False)
            if not (folder / REFERENCE_WEIGHTS).is_file():
                preoptimize(self.bundle, self.pictures, self._load, self.recipe.preoptimize, folder, self.team)
            known = load_file(folder / REFERENCE_WEIGHTS)
        self.network.requires_grad_(True)
        self.loop.run(lambda generator: self._losses(next(self.slices), known, generator))
        self.loop.use_average()

    def export(self) -> None:
        """Write the bundle around the base as it was given, and a sheet of samples."""
        output = self.recipe.path(self.recipe.output)
        whole = replace(load_bundle(self.base, device="cpu"), config=self.recipe.bundle)
        export_bundle(replace(whole, hypernetwork=self.network.cpu().eval()), output)
        photos = pictures_at(self.shards, list(range(min(8, self.pictures))))
        side = self.recipe.bundle.resolution
        faces = Faces(np.stack([decode_picture(photo.image, side) for photo in photos]), ("",) * len(photos), ())
        finished = load_bundle(output, device=self.bundle.device.type)
        sample_sheet(finished, "hypernetwork", faces, self.work / "hypernetwork", columns=len(photos))

    def _losses(self, part: Slice, known: dict[str, torch.Tensor], generator: torch.Generator) -> Losses:
        rows = to_rows(self.bundle, self.network, part, self.precision)
        config = self.recipe.hypernetwork
        return hypernetwork_losses(self.bundle, self.network, rows, known, config, generator, precision=self.precision)

    def _load(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        photos = pictures_at(self.shards, numbers.tolist())
        side = self.recipe.bundle.resolution
        pixels = torch.from_numpy(np.stack([decode_picture(photo.image, side) for photo in photos]))
        with torch.no_grad():
            return pixels, encode_pictures(self.bundle, pixels)

    def _groups_left(self) -> int:
        folder, config = self.work / "preoptimize", self.recipe.preoptimize
        if config is None or (folder / REFERENCE_WEIGHTS).is_file():
            return 0
        groups = len(people_groups(self.pictures, config))
        return sum(not (folder / f"group-{number}.safetensors").is_file() for number in range(groups))


def main() -> None:
    """Run a recipe, in each of the processes that ``accelerate launch`` starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, help="such as core/lab/training/recipes/sd15.toml")
    parser.add_argument("--estimate", action="store_true", help="only say how long it would take")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu also where there is a GPU")
    arguments = parser.parse_args()
    try:
        recipe = load_large_recipe(arguments.recipe)
        accelerator = _accelerator(recipe, cpu=arguments.device == "cpu")
        logging.basicConfig(
            level=logging.INFO if accelerator.is_main_process else logging.WARNING, format="%(message)s"
        )
        site = DistributedRun(recipe, accelerator)
        logger.info("%s", site.estimate())
        if not arguments.estimate:
            site.train()
            if site.team.first:
                site.export()
            site.team.wait()
    except (BundleError, OSError) as error:
        parser.error(str(error))
    accelerator.end_training()


def _accelerator(recipe: LargeRecipe, *, cpu: bool) -> Accelerator:
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    try:
        return Accelerator(mixed_precision=recipe.precision, cpu=cpu, kwargs_handlers=[patience])
    except ValueError as error:
        raise BundleError(f"these processes cannot train with precision {recipe.precision!r}: {error}") from error


if __name__ == "__main__":
    main()
