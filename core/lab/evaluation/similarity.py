"""DINO, CLIP-I and CLIP-T (section 5.2) by the published models, when they can be had; a reason when they cannot.

They come by hub id or folder through transformers' own classes. Nothing stands in for them: a column is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

DINO, CLIP = "facebook/dino-vits16", "openai/clip-vit-base-patch32"
"""The models of the paper's tables (ViT-S/16 DINO, CLIP)."""


@dataclass(frozen=True)
class ImageSimilarity:
    """Cosines of pictures by a vision model; with ``tokenizer`` (CLIP) of pictures and texts as well."""

    processor: Any
    model: Any
    tokenizer: Any | None = None

    def images(
        self, made: UInt8[np.ndarray, "n h w 3"], photos: UInt8[np.ndarray, "m h w 3"]
    ) -> Float[np.ndarray, "n m"]:
        """Every generated picture against every photo."""
        cosines: np.ndarray = (self._images(made) @ self._images(photos).T).numpy()
        return cosines

    def texts(self, made: UInt8[np.ndarray, "n h w 3"], prompts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Each picture against its own prompt."""
        assert self.tokenizer is not None
        with torch.inference_mode():
            inputs = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
            texts = _unit(_pooled(self.model.get_text_features(**inputs)))
        cosines: np.ndarray = (self._images(made) * texts).sum(1).numpy()
        return cosines

    def _images(self, pictures: np.ndarray) -> Tensor:
        inputs = self.processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        with torch.inference_mode():
            if self.tokenizer is not None:
                return _unit(_pooled(self.model.get_image_features(**inputs)))
            return _unit(self.model(**inputs).last_hidden_state[:, 0])


def load_similarity(source: str, *, text: bool) -> ImageSimilarity | str:
    """The model of a hub id or folder (safetensors only), or why it cannot be had."""
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True).eval()
        processor = AutoImageProcessor.from_pretrained(source)
        return ImageSimilarity(processor, model, AutoTokenizer.from_pretrained(source) if text else None)
    except (OSError, ValueError) as error:
        return f"{source} cannot be had: {str(error).splitlines()[0]}"


def _pooled(features: Any) -> Tensor:
    pooled: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return pooled


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
