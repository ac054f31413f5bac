"""Opening a bundle: a diffusers pipeline folder or hub id, with what lies beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import load_recogniser
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.checks import check_parts, try_out
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.description import describe_folder
from core.hyperdreambooth.model.hypernetwork import HyperNetwork, from_description
from core.hyperdreambooth.model.pipeline_files import folder_of, open_pipeline
from core.hyperdreambooth.networks.module_file import read_description, read_weights


def load_bundle(source: str | Path, *, device: str = "auto") -> Bundle:
    """Open a folder or hub id of a Stable-Diffusion-type pipeline, with or without ``bundle.json`` and a hypernetwork.

    ``device`` "auto" takes CUDA when it is there. Everything is frozen and in evaluation mode; no pickle is opened.

    Raises:
        BundleError: the source is not such a pipeline, lacks tensors, or its parts do not match.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder = Path(source)
    files = folder_of(str(source))
    description = describe_folder(files, str(source).rstrip("/").rpartition("/")[2])
    bundle = from_pipeline(open_pipeline(files), description.config, source=str(source))
    for module in bundle.modules:
        module.to(where).eval().requires_grad_(False)
    try_out(bundle)
    bundle = replace(bundle, recogniser=load_recogniser(folder), description=description)
    network = _read_hypernetwork(folder / "hypernetwork", bundle)
    return bundle if network is None else replace(bundle, hypernetwork=network.to(where).eval().requires_grad_(False))


def from_pipeline(pipeline: Any, config: BundleConfig, *, source: str = "memory") -> Bundle:
    """A bundle around the components of a pipeline that is already in memory.

    Raises:
        BundleError: the pipeline lacks a component, or makes something else than pictures from texts.
    """
    parts = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    missing = [part for part in parts if getattr(pipeline, part, None) is None]
    if missing:
        raise BundleError(f"not a Stable-Diffusion-type pipeline: it has no {', '.join(missing)}")
    second: dict[str, Any] = {part: getattr(pipeline, part, None) for part in ("text_encoder_2", "tokenizer_2")}
    zero_empty = bool(pipeline.config.get("force_zeros_for_empty_prompt"))
    bundle = Bundle(
        source, config, **{part: getattr(pipeline, part) for part in parts}, **second, zero_empty=zero_empty
    )
    check_parts(bundle)
    return bundle


def _read_hypernetwork(folder: Path, bundle: Bundle) -> HyperNetwork | None:
    if not folder.is_dir():
        return None
    try:
        network = from_description(read_description(folder))
        weights = read_weights(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BundleError(f"the hypernetwork in {folder} cannot be read: {error}") from error
    if list(network.shapes.items()) != list(bundle.shapes.items()):
        raise BundleError(f"the hypernetwork in {folder} was made for other targets than the base model's")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"the hypernetwork in {folder} does not fit its own description: {error}") from error
    return network
