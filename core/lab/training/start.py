"""Go on from a finished bundle: its parts become the finished stages of a recipe, up to the hypernetwork's own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from core.errors import BundleError
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import HyperNetworkConfig
from core.hyperdreambooth.model.hypernetwork import HyperNetwork, LinearHyperNetwork
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.classifier import load_classifier
from core.lab.training.recipe import Recipe
from core.lab.training.stages import TrainingRun


def start_from(folder: Path, recipe: Recipe, *, device: str) -> TrainingRun:
    """The workshop of ``recipe`` with the parts of the bundle in ``folder``, written into its work folder.

    A linear hypernetwork of a lower rank than the recipe's is widened to it.

    Raises:
        BundleError: the recipe's work folder is not empty, or it describes other parts than the bundle's; nothing is
            written then.
    """
    work = recipe.path(recipe.work)
    if work.is_dir() and any(work.iterdir()):
        raise BundleError(f"{work} is not empty: work that has begun would be mixed with the bundle's")
    bundle = load_bundle(folder, device="cpu")
    parts = replace(bundle, hypernetwork=_network(bundle, recipe))
    try:
        bundle.tokenizer.save_pretrained(work / "tokenizer")
        workshop = TrainingRun(recipe, device=device)
        workshop.take(parts, load_classifier(folder))
    except (BundleError, OSError):
        shutil.rmtree(work, ignore_errors=True)
        raise
    return workshop


def _network(bundle: Bundle, recipe: Recipe) -> HyperNetwork:
    network, asked = bundle.hypernetwork, recipe.network
    if network is None:
        raise BundleError(f"bundle {bundle.name!r} has no hypernetwork to go on from")
    if bundle.config.lidb != recipe.bundle.lidb:
        raise BundleError("the recipe's bundle.lidb is not the bundle's: its hypernetwork was made for other layers")
    if isinstance(network, LinearHyperNetwork) and asked.rank > network.config.rank:
        network = network.widened(asked.rank, seed=recipe.seed)
    known = network.config
    if isinstance(known, HyperNetworkConfig):  # a recipe does not say how many people the training pictures show
        known = replace(known, identities=0)
    if known != asked:
        raise BundleError("the recipe's network is not the bundle's: only a linear one's rank may be higher")
    return network
