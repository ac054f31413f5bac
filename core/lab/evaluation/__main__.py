"""The paper's tables: ``python -m core.lab.evaluation --faces EVAL.parquet --recogniser R.onnx``.

For people the bundle was never trained on, one photo each (or ``--photos``): likeness, style, diversity, seconds and
bytes of HyperDreamBooth, its ablations and the methods it is held against; with ``--vary`` and ``--degrade`` of itself
with one setting changed or a worse photo. Subjects that are not faces come from a folder, with ``--noun``. Writes
``tables.md``, ``tables.json``, ``differences.md`` (of the rows from the first one, person by person), ``groups.md``,
``styles.md`` and a grid of pictures for each row into ``--output``; run again with the same arguments, it goes on where
it was interrupted. ``python -m core.lab.evaluation behavior`` measures whether a bundle knows a person or copies a
photo, and whether words are followed; ``instruments`` measures what checks words; ``report`` measures nothing: it
writes the tables of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.errors import HyperDreamBoothError, SettingsError
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.evaluation import results
from core.lab.evaluation.behavior import command, instruments
from core.lab.evaluation.gain import gain_table, gains
from core.lab.evaluation.groups import group_table
from core.lab.evaluation.methods import METHODS, QUICK, Method, find_methods, with_finetuning
from core.lab.evaluation.metrics import ACCEPT
from core.lab.evaluation.records import Record
from core.lab.evaluation.report import by_style, classifier_accuracy, differences, grid, summarise, table
from core.lab.evaluation.setup import STRANGERS, open_study
from core.lab.evaluation.similarity import CLIP, DINO
from core.lab.evaluation.study import Study, ceiling, label
from core.lab.evaluation.variations import DEGRADATIONS, degraded, varied

log = logging.getLogger(__name__)

FACES_HELP = (
    "parquet with columns image, identity, attributes; or a folder with a subfolder of pictures for each subject"
)

MEASURED = {"photo": "recogniser", "dino": "dino", "clip_i": "clip"}
"""Columns of likeness, and the metric that each needs."""

OWN = METHODS["hyperdreambooth"].title
"""The row of the bundle as it is."""

OTHERS = {"behavior": command.main, "instruments": instruments.main, "report": results.main}
"""What else this program does, by its first argument."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, write; a first argument of ``OTHERS`` does what it names instead."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in OTHERS:
        OTHERS[arguments[0]](arguments[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation", description=__doc__)
    parser.add_argument(
        "--bundle", default=str(command.EMBEDDED), help="a folder or a hub id (default: the embedded bundle)"
    )
    parser.add_argument("--faces", type=Path, required=True, help=FACES_HELP)
    parser.add_argument("--noun", help="what the subjects are, for prompts (default: the bundle's, such as face)")
    parser.add_argument("--recogniser", type=Path, help="an ONNX face recogniser; FILE?range=1: its pixels are -1..1")
    parser.add_argument(
        "--accept", type=float, default=ACCEPT, help="the cosine above which it accepts (default: %(default)s)"
    )
    parser.add_argument(
        "--dino", default=DINO, help="folder or hub id (default: %(default)s); no hub: HF_HUB_OFFLINE=1"
    )
    parser.add_argument("--clip", default=CLIP, help="folder or hub id (default: %(default)s)")
    parser.add_argument(
        "--methods", nargs="*", default=list(QUICK), choices=[*METHODS, "all"], help="rows (default: %(default)s)"
    )
    parser.add_argument("--sweep", type=int, default=0, help="choose learning rates on the first so many people")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=V,V", help="rows: a setting's values")
    parser.add_argument(
        "--degrade", nargs="+", default=[], choices=[*DEGRADATIONS, "all"], help="rows: the photo made worse"
    )
    parser.add_argument("--gain", action="store_true", help="also: what the prediction saves of the loss, by timestep")
    parser.add_argument("--people", type=int, default=STRANGERS, help="at most, and by default, %(default)s")
    parser.add_argument("--photos", type=int, default=1, help="photos used of each person who has more than so many")
    parser.add_argument("--pictures", type=int, default=4, help="pictures of the plain prompt for each person")
    parser.add_argument("--plain", action="store_true", help="no styles and attributes: likeness alone, faster")
    parser.add_argument("--steps", type=int, help="finetuning steps (default: the bundle's)")
    parser.add_argument("--group", type=int, default=6, help="people personalized in one batch (1: honest seconds)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        evaluate(parser.parse_args(arguments))
    except HyperDreamBoothError as error:
        parser.error(error.detail)


def evaluate(arguments: argparse.Namespace) -> None:
    """All methods that the bundle can be personalized by, then the tables."""
    bundle = load_bundle(arguments.bundle)
    trained_on = bundle.class_noun
    if arguments.noun:
        bundle = bundle.configured(bundle.config.changed("class_noun", arguments.noun))
    if arguments.steps:
        bundle = with_finetuning(bundle, steps=arguments.steps, steps_from_zero=arguments.steps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    study, reasons = open_study(bundle, arguments, trained_on)
    if arguments.sweep and not set(MEASURED.values()) & set(study.measured_by):
        raise SettingsError("--sweep needs a metric of likeness: give --recogniser, --dino or --clip")
    study.settle()
    worse = list(DEGRADATIONS) if "all" in arguments.degrade else arguments.degrade
    variations = [row for setting in arguments.vary for row in varied(setting)] + [degraded(name) for name in worse]
    methods = [*find_methods(arguments.methods), *variations]
    lacking = {method.name: reason for method in methods if (reason := method.missing(bundle)) is not None}
    reasons |= {f"row {method.title!r}": lacking[method.name] for method in methods if method.name in lacking}
    rows, names = _rows(study, [method for method in methods if method.name not in lacking], arguments.sweep)
    _write_differences(study, rows)
    if arguments.gain:
        _write_gains(study, reasons)
    if study.metrics.recogniser is not None:
        kept = ceiling(study)
        rows["the autoencoder alone (ceiling)"] = kept
        _write_groups(study, rows, kept)
    _write(study, rows, reasons, names)


def _rows(study: Study, methods: Sequence[Method], sweep: int) -> tuple[dict[str, list[Record]], list[str]]:
    """Titles to records, and the records' names. Of several processes none waits while there is something to do."""
    small = replace(study, chosen=study.chosen[:sweep], large=study.large[:sweep])
    swept = {method.name for method in methods if sweep and method.rates}
    for method in methods:
        for rate in method.rates if method.name in swept else (None,):
            (study if rate is None else small).take(method, rate)
    rows, names = {}, []
    for method in methods:
        rate = _best_rate(small, method) if method.name in swept else None
        title = method.title if rate is None else f"{method.title}, learning rate {rate:g}"
        rows[title] = study.run(method, rate)
        names.append(label(method, rate))
    return rows, names


def _best_rate(study: Study, method: Method) -> float:
    """The learning rate whose pictures are most like the photos and keep the styles: the largest product of both."""
    found = {rate: summarise(study.run(method, rate)) for rate in method.rates}
    lines = table({f"{method.title}, learning rate {rate:g}": row for rate, row in found.items()}, {})
    file = study.folder / "sweep" / f"{method.name}.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(lines)
    log.info("%s", lines)
    likeness = next(key for key, metric in MEASURED.items() if metric in study.measured_by)
    return max(found, key=lambda rate: found[rate][likeness][0] * found[rate].get("style_accuracy", (1.0, None))[0])


def _write_groups(study: Study, rows: dict[str, list[Record]], kept: list[Record]) -> None:
    """Likeness by apparent gender and skin tone, for the bundle's own row."""
    own = rows.get(OWN)
    if own is not None:
        _publish(study, "groups.md", group_table(study.large, own, kept))


def _write_differences(study: Study, rows: dict[str, list[Record]]) -> None:
    """What the rows have more than the bundle's own, or than the first of them where that is not among them."""
    first = OWN if OWN in rows else next(iter(rows), OWN)
    if found := differences(rows, first):
        said = f"What each row has more than {first!r}, person by person:\n\n"
        _publish(study, "differences.md", said + table(found, {}))


def _write_gains(study: Study, reasons: dict[str, str]) -> None:
    """What the hypernetwork's prediction saves of the denoising loss, by timestep."""
    if not study.bundle.has_hypernetwork:
        reasons["gain"] = "the bundle has no hypernetwork"
        return
    _publish(study, "gains.md", gain_table(gains(study.bundle, study.chosen, seed=study.seed)))


def _write(study: Study, rows: dict[str, list[Record]], reasons: dict[str, str], names: list[str]) -> None:
    summaries = {title: summarise(records) for title, records in rows.items()}
    own = summaries.get(OWN, {})
    for summary in summaries.values():
        if "seconds" in own and study.group == 1 and "seconds" in summary:
            summary["times"] = (summary["seconds"][0] / own["seconds"][0], None)
    if styles := by_style(own):
        _publish(study, "styles.md", table(styles, {}))
    report = {
        "bundle": study.bundle.name,
        "fingerprint": study.bundle.fingerprint,
        "people": len(study.chosen),
        "seed": study.seed,
        "finetuning_steps": study.bundle.finetuning_steps(study.photos),
        "rows": summaries,
        "left_out": reasons,
    }
    text = table(summaries, reasons)
    classifier = study.metrics.classifier
    if classifier is not None and not math.isnan(classifier.config.style_accuracy):
        report["classifier"] = {
            "styles": classifier.config.style_accuracy,
            "attributes": classifier.config.attribute_accuracy,
        }
        text += "\n" + classifier_accuracy(classifier.config)
    if study.metrics.recogniser is not None:
        text += f"\nAccepted: a cosine above {study.metrics.accept:g} with the photo.\n"
    (study.folder / "tables.json").write_text(json.dumps(report, indent=2) + "\n")
    grid(study.folder, names)
    _publish(study, "tables.md", text)


def _publish(study: Study, name: str, text: str) -> None:
    """Write a file into the study's folder, and log its text."""
    (study.folder / name).write_text(text)
    log.info("%s", text)


if __name__ == "__main__":
    main()
