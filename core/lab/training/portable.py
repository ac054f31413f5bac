"""An exported folder that opens in every diffusers and transformers that people have, not only in those installed here.

Newer versions of transformers write a text encoder's tensors without ``text_model.`` before their names, and a
tokenizer as one file. All of them read the older way; versions 4 and 5.0 to 5.5 read nothing else, and fill what they
do not find with random numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

_OUTSIDE = ("text_model.", "text_projection.")
"""What the tensors of a text encoder start with in the older way."""


def make_portable(folder: Path) -> None:
    """Rewrite the text encoders and tokenizers of a pipeline's folder in the older way; no number changes."""
    for encoder in folder.glob("text_encoder*"):
        for file in encoder.glob("*.safetensors"):
            _prefix_tensors(file)
    for tokenizer in folder.glob("tokenizer*"):
        _write_vocabulary(tokenizer)


def _prefix_tensors(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    if all(name.startswith(_OUTSIDE) for name in tensors):
        return
    mode = file.stat().st_mode
    save_file({_prefixed(name): tensor for name, tensor in tensors.items()}, file, metadata=metadata)
    file.chmod(mode)  # it writes for its owner alone


def _prefixed(name: str) -> str:
    return name if name.startswith(_OUTSIDE) else f"text_model.{name}"


def _write_vocabulary(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt``, which CLIP's tokenizer was before ``tokenizer.json``."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
