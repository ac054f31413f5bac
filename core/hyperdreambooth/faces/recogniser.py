"""The face recogniser that ships with a bundle: a small encoder whose cosines measure likeness.

It was trained on the bundle's training pictures alone, as they are and through the style filters. ``config.json`` says
how well it tells apart people it has never seen, so that a cosine can be read against that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from core.errors import BundleError
from core.hyperdreambooth.networks.module_file import has_module, read_description, read_weights, save_module
from core.hyperdreambooth.networks.residual import residual_branch

FOLDER = "recogniser"
"""Its place in a bundle's folder."""

FACE = (0.125, 0.1875, 0.75)
"""Left, top and side of the square that is used, as parts of an aligned picture: the face without its surroundings."""


@dataclass(frozen=True)
class RecogniserConfig:
    """The network, and what was measured on pairs of photos of people it was not trained on.

    ``auc`` is the area under the ROC curve, ``accepted`` the share of pairs of one person whose cosine is above
    ``threshold``, which one pair of strangers in a hundred exceeds. ``styled_auc``: one photo of each pair in a style.
    """

    resolution: int = 48
    channels: tuple[int, ...] = (32, 64, 96, 160)
    embedding: int = 128
    auc: float = float("nan")
    accepted: float = float("nan")
    threshold: float = float("nan")
    styled_auc: float = float("nan")


class FaceRecogniser(nn.Module):
    """Stages that each halve the picture, then one linear layer: faces are aligned, so that places mean something."""

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.Sequential(*(_Stage(a, b) for a, b in pairwise((3, *config.channels))))
        side = config.resolution // 2 ** len(config.channels)
        self.head = nn.Linear(config.channels[-1] * side**2, config.embedding)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n embedding"]:
        """Unit embeddings of faces in [-1, 1], cut out as ``cut_out`` does."""
        embeddings: Tensor = nn.functional.normalize(self.head(self.features(pixels)), dim=-1)
        return embeddings

    def features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """The input of the last layer, for faces in [-1, 1]."""
        features: Tensor = self.stages(pixels).flatten(1)
        return features

    @torch.inference_mode()
    def embed(self, pictures: UInt8[np.ndarray, "n side side 3"], *, batch: int = 64) -> Float[np.ndarray, "n e"]:
        """Unit embeddings of aligned square pictures of any size: of each together with its mirror image."""
        parts = []
        for start in range(0, len(pictures), batch):
            pixels = cut_out(torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch])), self.config)
            both = self.features(pixels) + self.features(pixels.flip(3))
            parts.append(nn.functional.normalize(self.head(both / 2), dim=-1).numpy())
        return np.concatenate(parts)

    def save(self, bundle_folder: Path) -> None:
        """Write it into a bundle's folder, in fp16."""
        save_module(bundle_folder / FOLDER, self, asdict(self.config))


def load_recogniser(bundle_folder: Path) -> FaceRecogniser | None:
    """The recogniser of a bundle's folder, on the CPU; None when it has none.

    Raises:
        BundleError: the files are there and do not fit together.
    """
    folder = bundle_folder / FOLDER
    if not has_module(folder):
        return None
    try:
        described = read_description(folder)
        config = RecogniserConfig(**{**described, "channels": tuple(described["channels"])})
        recogniser = FaceRecogniser(config)
        recogniser.load_state_dict(read_weights(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"the recogniser in {folder} cannot be read: {error}") from error
    return recogniser.eval().requires_grad_(False)


def cut_out(pictures: UInt8[Tensor, "n side side 3"], config: RecogniserConfig) -> Float[Tensor, "n 3 h w"]:
    """The faces of aligned pictures in [-1, 1], at the network's resolution."""
    side = pictures.shape[1]
    left, top, width = (round(part * side) for part in FACE)
    pixels = pictures[:, top : top + width, left : left + width].permute(0, 3, 1, 2).float() / 127.5 - 1
    if width == config.resolution:
        return pixels
    size = (config.resolution, config.resolution)
    return nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)


class _Stage(nn.Module):
    """A convolution that halves the picture, then a residual block."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.body = residual_branch(after)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        halved = self.down(pixels)
        out: Tensor = halved + self.body(halved)
        return out
