"""A small network in a folder of a bundle: ``config.json`` that describes it, ``model.safetensors`` in fp16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

DESCRIPTION, WEIGHTS = "config.json", "model.safetensors"


def save_part(folder: Path, module: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a module's weights and what it takes to build it again; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().half().contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def has_part(folder: Path) -> bool:
    """Whether there is one."""
    return (folder / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """What ``save_part`` was told of it. Raises OSError and ValueError for a file that is not there or damaged."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    return description


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A module's state in fp32. Raises OSError and SafetensorError for a file that is not there or damaged."""
    return {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
