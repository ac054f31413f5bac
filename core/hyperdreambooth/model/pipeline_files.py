"""The files of a diffusers pipeline: which of them are opened, and that each tensor of each part is there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from core.errors import BundleError

_MODULES = ("vae", "text_encoder", "text_encoder_2", "unet")
"""The parts that have weights, where the pipeline has them."""
_FILE = re.compile(r"(?:diffusion_pytorch_model|model)(?:-\d+-of-\d+)?(?:\.(?P<variant>\w+))?\.safetensors")
_CHECKPOINT = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_NO_WEIGHTS = re.compile(r"(^|\.)position_ids$")
"""Tensors that old files have and models compute: 0, 1, 2, ..."""
_NAMED = 5
_FAULTS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError, SafetensorError)


def folder_of(source: str) -> Path:
    """The folder of a bundle: itself, or where a hub id was downloaded to, with its plain weights or those in fp16.

    Raises:
        BundleError: there is no such pipeline; of a checkpoint in a single file it says how to convert that.
    """
    folder = Path(source)
    _refuse_checkpoint(folder)
    if folder.is_dir():
        return folder
    if source.startswith((".", "/")) or source.count("/") != 1:
        raise BundleError(f"{source} is neither a folder nor a hub id such as owner/name")
    try:
        try:
            return Path(DiffusionPipeline.download(source, use_safetensors=True))
        except OSError:
            return Path(DiffusionPipeline.download(source, use_safetensors=True, variant="fp16"))
    except _FAULTS as error:
        raise BundleError(f"{source} cannot be downloaded: {error}") from error


def open_pipeline(folder: Path) -> Any:
    """The pipeline of a folder in fp32. No pickle is opened.

    Where a part has its weights only as a variant (``fp16``), that is taken.

    Raises:
        BundleError: there is no pipeline, or a part lacks tensors, or has others; it names them.
    """
    try:
        parts = DiffusionPipeline.load_config(folder)
        opened = {part: _open(folder, part, *parts[part]) for part in _MODULES if _is_there(parts.get(part))}
        return DiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32, **opened)
    except _FAULTS as error:
        raise BundleError(f"{folder} cannot be opened as a diffusers pipeline: {error}") from error


def _is_there(part: object) -> bool:
    return isinstance(part, list) and all(part)


def _refuse_checkpoint(source: Path) -> None:
    """Say how to convert a checkpoint of a single file, be it the source itself or all that its folder has."""
    inside = source.iterdir() if source.is_dir() and not (source / "model_index.json").exists() else ()
    files = [each for each in (source, *sorted(inside)) if each.suffix in _CHECKPOINT and each.is_file()]
    if files:
        code = f"StableDiffusionPipeline.from_single_file({str(files[0])!r}).save_pretrained('FOLDER')"
        raise BundleError(
            f"{files[0]} is a checkpoint in a single file. Convert it to a folder first, and name that: "
            f'python -c "from diffusers import StableDiffusionPipeline; {code}" '
            "(StableDiffusionXLPipeline for SDXL)."
        )


def _open(folder: Path, part: str, library: str, name: str) -> Any:
    """One part with all its tensors. Raises BundleError."""
    module, found = getattr(importlib.import_module(library), name).from_pretrained(
        folder / part,
        use_safetensors=True,
        variant=_variant(folder / part),
        output_loading_info=True,
        dtype=torch.float32,
    )
    _refuse(folder / part, "lacks", found["missing_keys"])
    _refuse(folder / part, "has tensors that the model does not know:", found["unexpected_keys"])
    _refuse(folder / part, "has tensors of other shapes:", (key for key, *_ in found["mismatched_keys"]))
    return module


def _variant(folder: Path) -> str | None:
    """The variant of the weights of a part; None: the plain ones are there, or none are."""
    matches = [match for file in sorted(folder.iterdir()) if (match := _FILE.fullmatch(file.name))]
    variants = [match["variant"] for match in matches]
    return variants[0] if variants and None not in variants else None


def _refuse(folder: Path, what: str, names: Iterable[str]) -> None:
    named = sorted(name for name in names if not _NO_WEIGHTS.search(name))
    if named:
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        raise BundleError(
            f"{folder.name} {what} {', '.join(named[:_NAMED])}{more}: the files in {folder} are damaged, or of a "
            "version of transformers or diffusers that does not fit the one that is installed"
        )
