"""The paper's tables: ``python -m core.lab.evaluation --faces EVAL.parquet --recogniser R.onnx``.

For people the bundle was never trained on, one photo each (or ``--photos``): likeness, style, diversity, seconds and
bytes of HyperDreamBooth, its ablations and the methods it is held against; with ``--vary`` and ``--degrade`` of itself
with one setting changed or a worse photo. Subjects that are not faces come from a folder, with ``--noun``. Writes
``tables.md``, ``tables.json``, ``differences.md`` (of the rows from the first one, person by person), ``groups.md``,
``styles.md`` and a grid of pictures for each row into ``--output``; run again with the same arguments, it goes on where
it was interrupted. ``python -m core.lab.evaluation report`` measures nothing: it writes the tables of docs/results.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.errors import HyperDreamBoothError, SettingsError
from core.hyperdreambooth.faces.onnx_recogniser import OnnxRecogniser, path_of
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.classifier import load_classifier
from core.lab.evaluation import results
from core.lab.evaluation.gain import gain_table, gains
from core.lab.evaluation.groups import group_table
from core.lab.evaluation.methods import METHODS, QUICK, Method, find_methods, with_finetuning
from core.lab.evaluation.metrics import ACCEPT, ATTRIBUTES, Metrics
from core.lab.evaluation.report import by_style, differences, grid, judge_accuracy, summarise, table
from core.lab.evaluation.sheet import style_sheet
from core.lab.evaluation.similarity import CLIP, DINO, ImageSimilarity, load_similarity
from core.lab.evaluation.study import Record, Study, ceiling, label
from core.lab.evaluation.subjects import load_pictures, subjects
from core.lab.evaluation.variations import DEGRADATIONS, degraded, varied
from core.lab.training.data import load_faces

log = logging.getLogger(__name__)

STRANGERS = 100
"""Other people that pictures are held against; and the most people of an evaluation."""

FACES_HELP = (
    "parquet with columns image, identity, attributes; or a folder with a subfolder of pictures for each subject"
)

JUDGED = {"photo": "recogniser", "dino": "dino", "clip_i": "clip"}
"""Columns of likeness, and the judge that each has."""

OWN = METHODS["hyperdreambooth"].title
"""The row of the bundle as it is."""

EMBEDDED = Path(__file__).parents[2] / "bundles" / "faces-64"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, write; ``report`` as the first argument writes docs/results.md instead."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["report"]:
        results.main(arguments[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation", description=__doc__)
    parser.add_argument("--bundle", default=str(EMBEDDED), help="a folder or a hub id (default: the embedded bundle)")
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
    parser.add_argument(
        "--sheet", type=Path, help="also draw a sheet of styles, for the faces of nobody (identity omi...) in this file"
    )
    parser.add_argument("--sheet-people", type=int, default=20)
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
    if arguments.sheet:
        faces = load_faces([arguments.sheet], bundle.resolution)
        style_sheet(bundle, faces, arguments.output, seed=arguments.seed, people=arguments.sheet_people)
    study, reasons = _study(bundle, arguments, trained_on)
    if arguments.sweep and not set(JUDGED.values()) & set(study.judged_by):
        raise SettingsError("--sweep needs a judge of likeness: give --recogniser, --dino or --clip")
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
    if study.judges.recogniser is not None:
        kept = ceiling(study)
        rows["the autoencoder alone (ceiling)"] = kept
        _write_groups(study, rows, kept)
    _write(study, rows, reasons, names)


def _study(bundle: Bundle, arguments: argparse.Namespace, trained_on: str) -> tuple[Study, dict[str, str]]:
    """The study, and the reasons for what it leaves out."""
    reasons: dict[str, str] = {}
    classifier = load_classifier(Path(bundle.source))
    if classifier is None:
        reasons["style and attribute accuracy"] = "the bundle has no classifier"
    elif bundle.class_noun != trained_on:
        classifier = None
        reasons["style and attribute accuracy"] = f"the bundle's classifier was trained on a {trained_on}"
    similar: dict[str, ImageSimilarity | None] = {}
    judged_by = {} if classifier is None else {"classifier": "the bundle's"}
    for name, source, text in (("dino", arguments.dino, False), ("clip", arguments.clip, True)):
        loaded = load_similarity(source, text=text)
        if isinstance(loaded, str):
            reasons[name.upper()] = loaded
        else:
            judged_by[name] = source
        similar[name] = None if isinstance(loaded, str) else loaded
    if arguments.recogniser is None:
        recogniser = None
        reasons["face recognition"] = "no --recogniser was given"
    else:
        recogniser = OnnxRecogniser(arguments.recogniser)
        judged_by["recogniser"] = hashlib.sha256(path_of(arguments.recogniser).read_bytes()).hexdigest()[:16]
        if arguments.accept != ACCEPT:
            judged_by["accepts at"] = f"{arguments.accept:g}"
    styles = tuple(STYLES) if classifier is None else classifier.config.styles
    known = () if classifier is None else classifier.config.attributes
    if arguments.photos < 1:
        raise SettingsError("--photos has to be 1 or more")
    side = max(128, bundle.resolution)
    everybody = load_pictures(arguments.faces, side)
    sized = everybody if side == bundle.resolution else load_pictures(arguments.faces, bundle.resolution)
    large = subjects(everybody, STRANGERS, photos=arguments.photos)
    if not large:
        raise SettingsError(f"nobody in {arguments.faces} has more than {arguments.photos} photos: lower --photos")
    people = min(arguments.people, len(large))
    study = Study(
        bundle,
        arguments.output,
        subjects(sized, people, photos=arguments.photos),
        large[:people],
        subjects(everybody, STRANGERS),
        Metrics(recogniser, classifier, **similar, accept=arguments.accept),
        photos=arguments.photos,
        pictures=arguments.pictures,
        group=arguments.group,
        seed=arguments.seed,
        styles=() if arguments.plain else tuple(style for style in styles if style != PHOTO.name),
        judged_by=judged_by,
        attributes=() if arguments.plain else tuple(word for word in ATTRIBUTES if word in known),
    )
    return study, reasons


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
    likeness = next(key for key, judge in JUDGED.items() if judge in study.judged_by)
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
    judge = study.judges.classifier
    if judge is not None and not math.isnan(judge.config.style_accuracy):
        report["classifier"] = {"styles": judge.config.style_accuracy, "attributes": judge.config.attribute_accuracy}
        text += "\n" + judge_accuracy(judge.config)
    if study.judges.recogniser is not None:
        text += f"\nAccepted: a cosine above {study.judges.accept:g} with the photo.\n"
    (study.folder / "tables.json").write_text(json.dumps(report, indent=2) + "\n")
    grid(study.folder, names)
    _publish(study, "tables.md", text)


def _publish(study: Study, name: str, text: str) -> None:
    """Into the study's folder, and to whoever looks on."""
    (study.folder / name).write_text(text)
    log.info("%s", text)


if __name__ == "__main__":
    main()
