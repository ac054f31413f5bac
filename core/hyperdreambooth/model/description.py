"""What a bundle's files say of it, without torch: its sizes, the length of its prompts, its tokenizers.

Whoever has the folder reads it there. Workers publish it for an API that has not, because the bundle is a hub id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import BundleError
from core.hyperdreambooth.model.config import BundleConfig


@dataclass(frozen=True)
class Tokenizer:
    """``text`` is a ``tokenizer.json``; ``length`` counts all tokens of a prompt, its start and end included."""

    text: str
    length: int


@dataclass(frozen=True)
class ModelDescription:
    """What can be asked of a bundle. ``pixels_multiple``: what width and height are multiples of."""

    config: BundleConfig
    has_hypernetwork: bool
    pixels_multiple: int
    tokenizers: tuple[Tokenizer, ...]

    def to_json(self) -> bytes:
        """The JSON that is kept in the store."""
        return _DESCRIPTION.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> ModelDescription:
        """Read what ``to_json`` wrote. Raises BundleError: it was another version."""
        try:
            description: ModelDescription = _DESCRIPTION.validate_json(text)
        except ValidationError as error:
            raise BundleError("the description of the model is of another version") from error
        return description


_DESCRIPTION: TypeAdapter[Any] = TypeAdapter(ModelDescription)


def describe_folder(folder: Path, name: str) -> ModelDescription:
    """What the files of a pipeline's folder say; without a ``bundle.json`` it is called ``name``.

    Raises:
        BundleError: a file is missing or cannot be read.
    """
    try:
        unet, vae = _json(folder / "unet" / "config.json"), _json(folder / "vae" / "config.json")
        pixels_per_latent = 2 ** (len(vae["block_out_channels"]) - 1)
        file = folder / "bundle.json"
        if file.is_file():
            config = BundleConfig.from_json(file.read_text())
        else:
            config = BundleConfig(name=name, resolution=unet["sample_size"] * pixels_per_latent)
        return ModelDescription(
            config,
            has_hypernetwork=(folder / "hypernetwork").is_dir(),
            pixels_multiple=pixels_per_latent * 2 ** (len(unet["block_out_channels"]) - 1),
            tokenizers=tuple(
                _tokenizer(folder, part) for part in ("tokenizer", "tokenizer_2") if (folder / part).is_dir()
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder} cannot be described: {error}") from error


def _tokenizer(folder: Path, part: str) -> Tokenizer:
    length = _json(folder / part.replace("tokenizer", "text_encoder") / "config.json")["max_position_embeddings"]
    file = folder / part / "tokenizer.json"
    text = file.read_text() if file.is_file() else _clip(folder / part)
    return Tokenizer(text, min(length, _json(folder / part / "tokenizer_config.json").get("model_max_length", length)))


def _clip(folder: Path) -> str:
    """The ``tokenizer.json`` of CLIP's tokenizer out of the two files that it was before."""
    vocabulary = _json(folder / "vocab.json")
    merges = (folder / "merges.txt").read_text().strip().split("\n")[1:]
    start, end = "<|startoftext|>", "<|endoftext|>"
    words = rf"{start}|{end}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+".replace("<|", r"<\|")
    split = {"type": "Split", "pattern": {"Regex": words.replace("|>", r"\|>")}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": end, "end_of_word_suffix": "</w>"}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": [end, vocabulary[end]],
                "cls": [start, vocabulary[start]],
                "trim_offsets": False,
                "add_prefix_space": False,
            },
            "decoder": None,
            "model": {**model, "continuing_subword_prefix": "", "fuse_unk": False, "byte_fallback": False},
        }
    )


def _json(file: Path) -> Any:
    return json.loads(file.read_text())
