"""Which style a picture is in and which attributes it shows: a small network that ships with a bundle, for measuring.

It learnt from real photos and from the style filters, never from generated pictures, and says of itself how often it is
right on people it has not seen (``config.json``), so that an accuracy of generated pictures can be read against it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from core.hyperdreambooth.model.latents import to_pixels
from core.hyperdreambooth.networks.module_file import has_module, read_description, read_weights, save_module

FOLDER = "classifier"
"""Its place in a bundle's folder."""

GRID = 4
"""The linear layer sees GRID x GRID places, whatever the picture's size."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Names of the outputs, and what was measured on unseen people: accuracy over styles, balanced over attributes."""

    styles: tuple[str, ...]
    attributes: tuple[str, ...]
    channels: tuple[int, ...] = (24, 48, 96, 128)
    style_accuracy: float = float("nan")
    attribute_accuracy: dict[str, float] = field(default_factory=dict)


class PictureClassifier(nn.Module):
    """Stages that each halve the picture, then one linear layer: faces are aligned, so that places mean something."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in pairwise((3, *config.channels))))
        self.head = nn.Linear(config.channels[-1] * GRID**2, len(config.styles) + len(config.attributes))

    def forward(
        self, pixels: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n styles"], Float[Tensor, "n attributes"]]:
        """Logits of the styles (one is right) and of the attributes (each for itself) of pictures in [-1, 1]."""
        grid = nn.functional.adaptive_avg_pool2d(self.stages(pixels), GRID)
        scores: Tensor = self.head(grid.flatten(1))
        return scores[:, : len(self.config.styles)], scores[:, len(self.config.styles) :]

    @torch.inference_mode()
    def style_of(self, pictures: UInt8[Tensor, "n h w 3"]) -> list[str]:
        """The likeliest style of each picture; "photo" is one of them."""
        return [self.config.styles[index] for index in self(to_pixels(pictures))[0].argmax(1)]

    @torch.inference_mode()
    def shows(self, pictures: UInt8[Tensor, "n h w 3"], attribute: str) -> list[bool]:
        """Whether each picture shows the attribute, likelier than not."""
        scores = self(to_pixels(pictures))[1][:, self.config.attributes.index(attribute)]
        return [bool(score > 0) for score in scores]

    def save(self, bundle_folder: Path) -> None:
        """Write it into a bundle's folder, in fp16."""
        save_module(bundle_folder / FOLDER, self, asdict(self.config))


def load_classifier(bundle_folder: Path) -> PictureClassifier | None:
    """The classifier of a bundle's folder, on the CPU; None when it has none."""
    folder = bundle_folder / FOLDER
    if not has_module(folder):
        return None
    described = read_description(folder)
    lists = {key: tuple(described[key]) for key in ("styles", "attributes", "channels")}
    classifier = PictureClassifier(ClassifierConfig(**{**described, **lists}))
    classifier.load_state_dict(read_weights(folder))
    return classifier.eval().requires_grad_(False)


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1),
        nn.GroupNorm(8, after),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1),
        nn.GroupNorm(8, after),
        nn.SiLU(),
    )
