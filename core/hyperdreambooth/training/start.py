"""Go on from a finished bundle: its parts become the finished stages of a recipe, up to the hypernetwork's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from core.errors import BundleError
from core.hyperdreambooth.classifier import load_classifier
from core.hyperdreambooth.config import HypernetworkConfig, LinearHypernetworkConfig
from core.hyperdreambooth.diffusion import Bundle, load_bundle
from core.hyperdreambooth.hypernetwork import HyperNetwork, LinearHyperNetwork
from core.hyperdreambooth.training.loop import save_whole
from core.hyperdreambooth.training.recipe import Recipe


def start_from(folder: Path, recipe: Recipe) -> None:
    """Write the parts of the bundle in ``folder`` where the stages of ``recipe`` look for what they have made.

    A linear hypernetwork of a lower rank than the recipe's is widened to it.

    Raises:
        BundleError: the recipe's work folder is not empty, or its hypernetwork is another one than the bundle's.
    """
    work = recipe.path(recipe.work)
    if work.is_dir() and any(work.iterdir()):
        raise BundleError(f"{work} is not empty: work that has begun would be mixed with the bundle's")
    bundle = load_bundle(folder, device="cpu")
    network = _network(bundle, recipe)
    base = {"unet": bundle.unet, "text_encoder": bundle.text_encoder}
    stages = {
        "autoencoder": {"vae": bundle.vae},
        "decoder": {"decoder": bundle.vae.decoder, "post_quant_conv": bundle.vae.post_quant_conv},
        "base": base,
        "hypernetwork": {"network": network, **base},
    }
    for stage, modules in stages.items():
        (work / stage).mkdir(parents=True, exist_ok=True)
        for name, module in modules.items():
            save_whole(module.state_dict(), work / stage / f"{name}.safetensors")
    factor = bundle.vae.config.scaling_factor
    (work / "autoencoder" / "scaling.json").write_text(json.dumps({"scaling_factor": factor}))
    if isinstance(network, LinearHyperNetwork):
        save_whole(network.encoder.state_dict(), work / "hypernetwork" / "eigenfaces.safetensors")
    bundle.tokenizer.save_pretrained(work / "tokenizer")
    for judge in (load_classifier(folder), bundle.recogniser):
        if judge is not None:
            judge.save(work)


def _network(bundle: Bundle, recipe: Recipe) -> HyperNetwork:
    network = bundle.hypernetwork
    if network is None:
        raise BundleError(f"bundle {bundle.name!r} has no hypernetwork to go on from")
    if bundle.config.lidb != recipe.bundle.lidb:
        raise BundleError("the recipe's bundle.lidb is not the bundle's: its hypernetwork was made for other layers")
    if isinstance(network, LinearHyperNetwork) and recipe.network.rank > network.config.rank:
        network = network.widened(recipe.network.rank, seed=recipe.seed)
    if network.config != _as_trained(recipe.network, network):
        raise BundleError("the recipe's network is not the bundle's: only a linear one's rank may be higher")
    return network


def _as_trained(
    asked: HypernetworkConfig | LinearHypernetworkConfig, network: HyperNetwork
) -> HypernetworkConfig | LinearHypernetworkConfig:
    """With what a recipe does not say: how many people the training pictures show."""
    known = network.config
    if isinstance(asked, HypernetworkConfig) and isinstance(known, HypernetworkConfig):
        return replace(asked, identities=known.identities)
    return asked
