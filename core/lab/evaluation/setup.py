"""An evaluation from its arguments: the subjects, the models that measure, and the reasons for what is left out."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from core.errors import SettingsError
from core.hyperdreambooth.faces.onnx_recogniser import OnnxRecogniser, path_of
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.classifier import load_classifier
from core.lab.evaluation.metrics import ACCEPT, ATTRIBUTES, Metrics
from core.lab.evaluation.similarity import ImageSimilarity, load_similarity
from core.lab.evaluation.study import Study
from core.lab.evaluation.subjects import load_pictures, subjects

STRANGERS = 100
"""Other people that pictures are compared with; and the most people of an evaluation."""


def open_study(bundle: Bundle, arguments: argparse.Namespace, trained_on: str) -> tuple[Study, dict[str, str]]:
    """The study, and the reasons for what it leaves out. ``trained_on`` is the noun that the bundle was trained on.

    Raises:
        SettingsError: there is no subject with enough photos.
    """
    metrics, measured_by, reasons = _metrics(bundle, arguments, trained_on)
    classifier = metrics.classifier
    styles = tuple(STYLES) if classifier is None else classifier.config.styles
    known = () if classifier is None else classifier.config.attributes
    if arguments.photos < 1:
        raise SettingsError("--photos has to be 1 or more")
    side = max(128, bundle.resolution)
    faces = load_pictures(arguments.faces, side)
    sized = faces if side == bundle.resolution else load_pictures(arguments.faces, bundle.resolution)
    large = subjects(faces, STRANGERS, photos=arguments.photos)
    if not large:
        raise SettingsError(f"no subject in {arguments.faces} has more than {arguments.photos} photos: lower --photos")
    people = min(arguments.people, len(large))
    study = Study(
        bundle,
        arguments.output,
        subjects(sized, people, photos=arguments.photos),
        large[:people],
        subjects(faces, STRANGERS),
        metrics,
        photos=arguments.photos,
        pictures=arguments.pictures,
        group=arguments.group,
        seed=arguments.seed,
        styles=() if arguments.plain else tuple(style for style in styles if style != PHOTO.name),
        measured_by=measured_by,
        attributes=() if arguments.plain else tuple(word for word in ATTRIBUTES if word in known),
    )
    return study, reasons


def _metrics(
    bundle: Bundle, arguments: argparse.Namespace, trained_on: str
) -> tuple[Metrics, dict[str, str], dict[str, str]]:
    """The models that can be had, what they are, and the reasons why the others are left out."""
    reasons: dict[str, str] = {}
    classifier = load_classifier(Path(bundle.source))
    if classifier is None:
        reasons["style and attribute accuracy"] = "the bundle has no classifier"
    elif bundle.class_noun != trained_on:
        classifier = None
        reasons["style and attribute accuracy"] = f"the bundle's classifier was trained on a {trained_on}"
    similar: dict[str, ImageSimilarity | None] = {"dino": None, "clip": None}
    measured_by = {} if classifier is None else {"classifier": "the bundle's"}
    for name, source, text in (("dino", arguments.dino, False), ("clip", arguments.clip, True)):
        loaded = load_similarity(source, text=text)
        if isinstance(loaded, str):
            reasons[name.upper()] = loaded
        else:
            measured_by[name], similar[name] = source, loaded
    if arguments.recogniser is None:
        recogniser = None
        reasons["face recognition"] = "no --recogniser was given"
    else:
        recogniser = OnnxRecogniser(arguments.recogniser)
        measured_by["recogniser"] = hashlib.sha256(path_of(arguments.recogniser).read_bytes()).hexdigest()[:16]
        if arguments.accept != ACCEPT:
            measured_by["accepts at"] = f"{arguments.accept:g}"
    metrics = Metrics(recogniser, classifier, **similar, accept=arguments.accept)
    return metrics, measured_by, reasons
