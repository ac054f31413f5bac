"""Make a bundle: ``python -m core.lab.training BUNDLE.toml [--from BUNDLE] [--only STAGE]``.

Stages that are finished are loaded, one that was interrupted goes on from its checkpoint; ``--from`` takes those up to
the hypernetwork's from a finished bundle. At the end the bundle's folder holds the pipeline, the recogniser, the
hypernetwork, ``bundle.json``, loss curves and sample sheets.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from core.errors import BundleError
from core.hyperdreambooth.model.config import SAMPLES
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.training.demo_face import save_demo_face
from core.lab.training.export import export_bundle, published_sheet, sample_sheet, save_samples
from core.lab.training.process_group import launched_group
from core.lab.training.recipe import load_recipe
from core.lab.training.stages import SHARED, STAGES, TrainingRun
from core.lab.training.start import start_from


def main() -> None:
    """Run the stages of a recipe."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.training", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a BUNDLE.toml")
    parser.add_argument("--from", dest="start", type=Path, metavar="BUNDLE", help="go on from a finished bundle")
    parser.add_argument("--only", choices=STAGES, help="stop after this stage, and write no bundle before the last one")
    parser.add_argument("--stage", choices=STAGES, help="train this stage alone, after what is finished; no bundle")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (CUDA when it is there)")
    parser.add_argument("--export", action="store_true", help="only write the bundle from what is finished")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        recipe = load_recipe(arguments.recipe)
        begun = None if arguments.start is None else start_from(arguments.start, recipe, device=device)
    except (BundleError, OSError) as error:
        parser.error(str(error))
    run = begun or TrainingRun(recipe, device=device, group=launched_group())
    stages = STAGES[: 1 + STAGES.index(arguments.only or STAGES[-1])]
    to_train = () if arguments.export else (arguments.stage,) if arguments.stage else STAGES
    finished = _finished(run, stages, to_train)
    if arguments.stage or not run.group.first:
        return
    last = "hypernetwork" if recipe.identity is None else "identity"
    if last not in finished and not arguments.export:
        return
    output = recipe.path(recipe.output)
    # A hypernetwork that has not been through its stage stays out: personalizing then starts from zero.
    trained = "hypernetwork" in finished
    export_bundle(run.bundle if trained else replace(run.bundle, hypernetwork=None), output)
    if "classifier" in finished:
        run.classifier.save(output)
    finished_bundle = load_bundle(output, device=device)
    published_sheet(finished_bundle, output / "samples.png")
    save_samples(finished_bundle, output / SAMPLES)
    if recipe.demo_face is not None:
        save_demo_face(finished_bundle, recipe.demo_face, output / "demo-face.png")


def _finished(run: TrainingRun, stages: Sequence[str], to_train: Sequence[str]) -> set[str]:
    """The stages whose parts are in the modules now: loaded, or, if among those to train, trained here."""
    finished = set()
    for stage in stages:
        if run.load(stage):
            finished.add(stage)
        elif stage in to_train:
            if run.group.first or stage in SHARED:
                run.run(stage)
            if run.group.first:
                sample_sheet(run.bundle, stage, run.faces, run.work / stage)
            run.group.wait()
            run.load(stage)
            finished.add(stage)
    return finished


if __name__ == "__main__":
    main()
