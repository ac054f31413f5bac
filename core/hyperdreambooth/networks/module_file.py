"""A small network in a folder of a bundle: ``config.json`` describes it, ``model.safetensors`` holds it in fp16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

DESCRIPTION, WEIGHTS = "config.json", "model.safetensors"


def save_module(folder: Path, module: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a module's weights and the description it can be built again from; creates the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().half().contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def has_module(folder: Path) -> bool:
    """Whether a module was saved in this folder."""
    return (folder / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """The description given to ``save_module``. Raises OSError or ValueError when it is missing or damaged."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    return description


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A module's state in fp32. Raises OSError or SafetensorError when it is missing or damaged."""
    return {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
