"""Measure a bundle: ``python -m core.hyperdreambooth.evaluation --recogniser R.onnx --faces EVAL.parquet``.

Writes ``likeness.json`` and ``likeness.md`` into ``--output``: for people the bundle was never trained on, one photo
each, the cosines of generated pictures with that photo, with the person's other photos and with other people.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from core.errors import HyperDreamBoothError
from core.hyperdreambooth.diffusion import Bundle, load_bundle
from core.hyperdreambooth.evaluation.likeness import (
    Likeness,
    ceiling,
    measure,
    pictures_of,
    refine,
    starting_point,
    subjects,
    with_other_guidance,
    with_steps,
)
from core.hyperdreambooth.evaluation.recognition import Recogniser
from core.hyperdreambooth.evaluation.sheet import style_sheet
from core.hyperdreambooth.finetune import PROMPT
from core.hyperdreambooth.lidb import Person
from core.hyperdreambooth.training.data import load_faces

log = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parents[1] / "bundles" / "faces-64"


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m core.hyperdreambooth.evaluation", description=__doc__)
    parser.add_argument("--bundle", default=str(EMBEDDED), help="a folder or a hub id (default: the embedded bundle)")
    parser.add_argument("--faces", type=Path, required=True, help="parquet with columns image, identity, attributes")
    parser.add_argument("--recogniser", type=Path, required=True, help="an ONNX face recogniser")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=4, help="pictures of each person")
    parser.add_argument("--steps", type=int, help="finetuning steps (default: the bundle's)")
    parser.add_argument("--group", type=int, default=6, help="people finetuned in one batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="also draw a sheet of styles, for faces of nobody in this file")
    parser.add_argument("--sheet-people", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        evaluate(arguments)
    except HyperDreamBoothError as error:
        parser.error(error.detail)


def evaluate(arguments: argparse.Namespace) -> None:
    """The likeness table of a bundle."""
    bundle = load_bundle(arguments.bundle)
    if arguments.steps:
        bundle = with_steps(bundle, arguments.steps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.sheet:
        faces = load_faces([arguments.sheet], bundle.resolution)
        style_sheet(bundle, faces, arguments.output, seed=arguments.seed, people=arguments.sheet_people)
    recogniser = Recogniser(arguments.recogniser)
    chosen = subjects(load_faces([arguments.faces], bundle.resolution), arguments.people)
    large = subjects(load_faces([arguments.faces], 128), arguments.people)
    reference = recogniser(np.stack([subject.photo for subject in large]))
    prompt, count = PROMPT.format(noun=bundle.class_noun), len(chosen)
    rows: dict[str, Likeness] = {}
    seconds: dict[str, float] = {}
    start = starting_point(bundle, chosen, seed=arguments.seed)
    began = time.perf_counter()
    refined = refine(bundle, chosen, start, group=arguments.group, seed=arguments.seed)
    seconds["finetuning, per person"] = (time.perf_counter() - began) / count
    compared: dict[str, tuple[Bundle, Person | None]] = {
        "refined": (bundle, refined),
        f"refined, {_other_guidance(bundle)}": (with_other_guidance(bundle), refined),
        "not personalised": (bundle, None),
    }
    if bundle.has_hypernetwork:
        compared["hypernetwork only"] = (bundle, start)
    for name, (how, person) in compared.items():
        made = pictures_of(how, person, count, prompt, each=arguments.pictures, seed=arguments.seed)
        rows[name] = measure(recogniser, large, made)
        log.info("%s: %s", name, rows[name])
    kept = ceiling(bundle, recogniser, chosen, reference)
    report = {
        "bundle": bundle.name,
        "fingerprint": bundle.fingerprint,
        "people": count,
        "pictures": arguments.pictures,
        "seed": arguments.seed,
        "finetuning_steps": bundle.finetuning_steps,
        "ceiling": kept,
        "seconds": seconds,
        "rows": {name: asdict(row) for name, row in rows.items()},
    }
    (arguments.output / "likeness.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.output / "likeness.md").write_text(_table(rows, kept))
    log.info("%s", _table(rows, kept))


def _other_guidance(bundle: Bundle) -> str:
    """What the ablation of guidance changes, in words."""
    other = with_other_guidance(bundle).config.sampling.unconditional
    return f"the pass without the prompt is {'the person' if other == 'person' else 'nobody'}'s"


def _table(rows: dict[str, Likeness], kept: tuple[float, float]) -> str:
    lines = ["| | with the photo | with other photos | with other people | accepted at 0.36 |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in (row.photo, row.others, row.strangers)]
        lines.append(f"| {name} | {' | '.join(cells)} | {row.accepted:.2f} |")
    lines.append(f"| autoencoder alone (ceiling) | {kept[0]:.3f} ± {kept[1]:.3f} | | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
