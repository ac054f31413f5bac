"""How a bundle behaves: ``python -m core.lab.evaluation behavior --faces EVAL.parquet --recogniser R.onnx``.

For people the bundle was never trained on, one photo each: whether it knows the person or repeats the photo (Sim(GT),
Sim(Ref), copy-paste, SSIM, yaw), whether seeds vary (as a share of what the base varies), whether words, poses and
styles are followed, and what personalizing costs. Trivial rows stand beside it: the photo through the autoencoder,
the photo through the filters, other real photos. Writes ``tables.md``, ``tables.json`` and sheets into ``--output``
after every row; run again with the same arguments, it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import HyperDreamBoothError, SettingsError
from core.hyperdreambooth.faces.onnx_recogniser import path_of
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.classifier import load_classifier
from core.lab.evaluation.behavior import sheet
from core.lab.evaluation.behavior.identity import Recogniser, dlib_recogniser, onnx_recogniser
from core.lab.evaluation.behavior.measures import Instruments, measure
from core.lab.evaluation.behavior.rows import ROWS, USUAL, Plan, Row, find_rows
from core.lab.evaluation.behavior.table import markdown, summarise
from core.lab.evaluation.behavior.visible import checked_by
from core.lab.evaluation.metrics import ACCEPT
from core.lab.evaluation.records import Record, complete, digest, settle, weights_of
from core.lab.evaluation.subjects import Subject, load_pictures, subjects
from core.lab.training.data import load_faces

log = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parents[3] / "bundles" / "faces-128"

_USED = Plan()


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.evaluation behavior", description=__doc__)
    add = parser.add_argument
    add("--bundle", default=str(EMBEDDED), help="a folder or a hub id (default: the embedded bundle)")
    add("--faces", type=Path, required=True, help="parquet with columns image, identity, attributes")
    add("--recogniser", type=Path, help="an ONNX face recogniser, A; FILE?range=1: its pixels are -1..1")
    add("--accept", type=float, default=ACCEPT, help="the cosine above which it accepts (default: %(default)s)")
    add("--second", type=Path, help="another one, B")
    add("--second-accept", type=float, default=ACCEPT, help="the same of B (default: %(default)s)")
    add("--no-dlib", action="store_true", help="leave out dlib's network, which ships and takes 45 ms a picture")
    add("--classifier", help="the bundle whose classifier checks words and styles (default: --bundle)")
    add("--rows", nargs="*", default=list(USUAL), help=f"of {', '.join(ROWS)} (default: %(default)s)")
    add("--vary", action="append", default=[], metavar="KEY=V,V", help="rows: personalized with a setting's values")
    add("--people", type=int, default=100, help="at most (default: %(default)s)")
    add("--skip", type=int, default=0, help="people left out at the beginning: those that others are reported on")
    add("--pictures", type=int, default=_USED.pictures, help="seeds of the plain prompt (default: %(default)s)")
    add("--words", nargs="*", default=list(_USED.words), choices=_USED.words, help="that are asked for (default: all)")
    add("--styles", nargs="*", choices=list(STYLES), help="(default: those the classifier knows)")
    add("--sampling-steps", type=int, help="(default: the bundle's)")
    add("--guidance", type=float, help="(default: the bundle's)")
    add("--group", type=int, default=6, help="people personalized in one batch (1: honest seconds)")
    add("--seed", type=int, default=0)
    add("--sheet", type=int, default=12, help="people on the sheet of each row (default: %(default)s)")
    add("--card", type=Path, help="also a sheet of generated faces (identity omi...) in this parquet file: card.png")
    add("--card-people", type=int, default=12)
    add("--output", type=Path, default=Path("runs/behavior"))
    return parser


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser()
    parsed = options.parse_args(arguments)
    try:
        run(parsed)
    except HyperDreamBoothError as error:
        options.error(error.detail)


@dataclass(frozen=True)
class Evaluation:
    """Everybody twice, ``used`` at the size of the pictures and ``large`` for recognisers, and what is measured."""

    bundle: Bundle
    folder: Path
    used: Sequence[Subject]
    large: Sequence[Subject]
    instruments: Instruments
    plan: Plan
    seed: int
    group: int
    on_sheet: int
    skipped: int = 0

    def records(self, row: Row) -> list[Record]:
        """One record for each person, measured now or earlier."""
        identities = [subject.identity for subject in self.used]
        file = self.folder / "records" / f"{row.name}.jsonl"

        def measured(part: Sequence[int]) -> Iterator[Record]:
            people = row.make(self.bundle, [self.used[index] for index in part], self.seed)
            for index, draw in zip(part, people, strict=True):
                made = draw(self.plan, self.seed + 1000 * (self.skipped + index))
                if index < self.on_sheet and not row.trivial:
                    sheet.save_line(self.used[index], made, self.plan, file.with_suffix("") / f"{index:03}.png")
                yield measure(self.instruments, self.large[index], self.used[index], made)

        found = complete(file, identities, self.group if row.batched else 1, measured)
        if not row.trivial:
            sheet.join_lines(file.with_suffix(""), self.plan, self.folder / f"sheet-{row.name}.png")
        return found


def run(options: argparse.Namespace) -> None:
    """All rows that the bundle has, and the tables after each of them.

    Raises:
        SettingsError: there is no one with two photos, nothing recognises them, or the folder has other settings.
    """
    rows = find_rows(options.rows, options.vary)
    evaluation = _opened(options)
    bundle = evaluation.bundle
    if options.card:
        faces = load_faces([options.card], bundle.resolution)
        card = evaluation.folder / "card.png"
        styles = evaluation.plan.styles
        sheet.card(bundle, faces, styles, card, seed=options.seed, people=options.card_people, group=options.group)
    missing = {row.name: reason for row in rows if (reason := row.missing(bundle)) is not None}
    found: dict[str, list[Record]] = {}
    for row in [row for row in rows if row.name not in missing]:
        found[row.name] = evaluation.records(row)
        _write(evaluation, found, {row.name: row.title for row in rows}, missing)


def _opened(options: argparse.Namespace) -> Evaluation:
    bundle = load_bundle(options.bundle)
    for key, value in (("sampling.steps", options.sampling_steps), ("sampling.guidance_scale", options.guidance)):
        bundle = bundle if value is None else bundle.configured(bundle.config.changed(key, value))
    classifier = load_classifier(Path(options.classifier or bundle.source))
    known = tuple(STYLES) if classifier is None else classifier.config.styles
    styles = options.styles if options.styles is not None else [name for name in known if name != PHOTO.name]
    plan = Plan(options.pictures, tuple(options.words), tuple(styles))
    side, most = max(128, bundle.resolution), options.skip + options.people
    large, used = (
        subjects(load_pictures(options.faces, size), most)[options.skip :] for size in (side, bundle.resolution)
    )
    if not large:
        raise SettingsError(f"{options.faces} has no one with two photos or more")
    evaluation = Evaluation(
        bundle,
        options.output,
        used,
        large,
        Instruments(_recognisers(options), classifier),
        plan,
        options.seed,
        options.group,
        options.sheet,
        options.skip,
    )
    settle(options.output, _settings(evaluation, options))
    return evaluation


def _recognisers(options: argparse.Namespace) -> list[Recogniser]:
    given = (("A", options.recogniser, options.accept), ("B", options.second, options.second_accept))
    found = [onnx_recogniser(name, file, accept) for name, file, accept in given if file is not None]
    found += [] if options.no_dlib else [dlib_recogniser()]
    if not found:
        raise SettingsError("nothing recognises people: give --recogniser, or leave out --no-dlib")
    return found


def _settings(evaluation: Evaluation, options: argparse.Namespace) -> dict[str, object]:
    """What the records depend on, but for how many people there are."""
    bundle, plan, classifier = evaluation.bundle, evaluation.plan, evaluation.instruments.classifier
    files = [file for file in (options.recogniser, options.second) if file is not None]
    return {
        "bundle": bundle.name,
        "fingerprint": bundle.fingerprint,
        "config": bundle.config.to_json(),
        "hypernetwork": digest(weights_of(bundle.hypernetwork)),
        "autoencoder": digest(weights_of(bundle.vae)),
        "classifier": digest(weights_of(classifier)),
        "recognisers": {r.name: r.accept for r in evaluation.instruments.recognisers},
        "files": [digest([np.fromfile(path_of(file), np.uint8)]) for file in files],
        "faces": options.faces.name,
        "pictures": plan.pictures,
        "prompts": plan.prompts(bundle.class_noun, has_subject=True),
        "group": evaluation.group,
        "seed": evaluation.seed,
    }


def _write(
    evaluation: Evaluation, found: dict[str, list[Record]], titles: dict[str, str], missing: dict[str, str]
) -> None:
    summaries = summarise(found)
    classifier, bundle = evaluation.instruments.classifier, evaluation.bundle
    checked = {word: checked_by(word, classifier) for word in evaluation.plan.words}
    left_out = {f"row {titles[name]!r}": reason for name, reason in missing.items()}
    left_out |= {f"word {word!r}": "the classifier does not know it" for word, by in checked.items() if by is None}
    report = {
        "bundle": bundle.name,
        "fingerprint": bundle.fingerprint,
        "people": len(evaluation.used),
        "seed": evaluation.seed,
        "checked_by": checked,
        "rows": {titles[name]: summary for name, summary in summaries.items()},
        "left_out": left_out,
    }
    (evaluation.folder / "tables.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(summaries, titles, [each.name for each in evaluation.instruments.recognisers])
    text += "".join(f"\nLeft out: {what}: {why}." for what, why in left_out.items())
    (evaluation.folder / "tables.md").write_text(text + "\n")
    log.info("%s", text)
