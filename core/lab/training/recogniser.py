"""The stage of the recogniser: a cosine-margin softmax over the people with several photos (CosFace, arXiv 1801.09414).

Photos are seen mirrored, shifted, scaled, turned, blurred and in another light, and some of them through a style
filter: what is judged later is generated, softer than a photo, and may be in a style.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.hyperdreambooth.faces.recogniser import FaceRecogniser, RecogniserConfig, cut_out
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.training.classifier import in_styles
from core.lab.training.data import Faces
from core.lab.training.loop import Losses
from core.lab.training.recipe import Recogniser

FALSE_ACCEPTS = 0.01
"""The share of pairs of strangers above the threshold that ``config.json`` tells."""

DISCRIMINANTS, SHRINKAGE = 64, 0.01
"""How many directions the last layer has, and how much of the spread within people is taken as equal in all of them;
chosen on 129 people that the directions were not made from (64 of them: AUC 0.887, 128: 0.880, 256: 0.869).
"""


class Identities(nn.Module):
    """What is trained: the recogniser and one direction for each person; only the recogniser ships."""

    def __init__(self, recogniser: FaceRecogniser, people: int) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.directions = nn.Parameter(torch.randn(people, recogniser.config.embedding))

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n people"]:
        """The cosine of each face with each person's direction."""
        cosines: Tensor = self.recogniser(pixels) @ nn.functional.normalize(self.directions, dim=-1).T
        return cosines


def fresh_identities(channels: tuple[int, ...], people: int, seed: int) -> Identities:
    """One with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Identities(FaceRecogniser(RecogniserConfig(channels=channels)), people)


def recogniser_losses(
    identities: Identities, faces: Faces, config: Recogniser, styles: tuple[str, ...], generator: torch.Generator
) -> Losses:
    """Cross entropy of ``scale`` x cosine, the right person's cosine lessened by ``margin``."""
    device = identities.directions.device
    batch = config.optimization.batch
    several = np.flatnonzero(faces.labels >= 0)
    chosen = several[torch.randint(len(several), (batch,), generator=generator).numpy()]
    pictures = _some_in_styles(faces.pictures[chosen], config.styled, styles, generator)
    pixels = cut_out(_varied(pictures, generator), identities.recogniser.config)
    cosines = identities(_in_another_light(pixels, generator).to(device))
    people = torch.from_numpy(faces.labels[chosen]).to(device)
    margin = config.margin * nn.functional.one_hot(people, cosines.shape[1])
    loss = nn.functional.cross_entropy(config.scale * (cosines - margin), people)
    return {"loss": loss, "wrong": (cosines.argmax(1) != people).float().mean()}


@torch.inference_mode()
def settle(recogniser: FaceRecogniser, faces: Faces, styles: tuple[str, ...]) -> None:
    """Give a trained recogniser its last layer anew, in closed form, from its training pictures and a style of each
    third one: the few steps that a small machine has time for leave the trained one with cosines that are all high.
    """
    several = np.flatnonzero(faces.labels >= 0)
    third = several[::3]
    styled = in_styles(faces.pictures[third], 1 + np.arange(len(third)) % len(styles), (PHOTO.name, *styles))
    features = np.concatenate([_features(recogniser, faces.pictures[several]), _features(recogniser, styled)])
    directions, bias = discriminants(features, faces.labels[np.concatenate([several, third])])
    head = nn.Linear(*directions.shape).requires_grad_(False)
    head.weight.copy_(torch.from_numpy(directions.T))
    head.bias.copy_(torch.from_numpy(bias))
    recogniser.head = head
    recogniser.config = replace(recogniser.config, embedding=directions.shape[1])


def discriminants(
    features: Float[np.ndarray, "n features"], people: np.ndarray
) -> tuple[Float[np.ndarray, "features k"], Float[np.ndarray, " k"]]:
    """The directions in which people differ most, by how much one person's pictures do (Fisher's), and a bias that
    takes off what all have in common: strangers have a cosine of about 0.
    """
    _, which, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), features.shape[1]), np.float32)
    np.add.at(means, which, features)
    means /= counts[:, None]
    centre = means.mean(0)
    within = np.cov(features - means[which], rowvar=False, bias=True).astype(np.float64)
    mean_variance = np.trace(within) / len(within)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * mean_variance * np.eye(len(within))
    variances, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(variances)
    between = (means - centre) @ whiten
    _, turned = np.linalg.eigh(between.T @ between)
    directions = whiten @ turned[:, ::-1][:, :DISCRIMINANTS]
    directions = (directions / np.abs(directions).max()).astype(np.float32)
    return directions, -centre @ directions


def with_verification(recogniser: FaceRecogniser, faces: Faces) -> RecogniserConfig:
    """Its config with how well it tells apart people that it was not trained on: all pairs of their photos."""
    several = np.flatnonzero(faces.labels >= 0)
    pictures, people = faces.pictures[several], faces.labels[several]
    names = (PHOTO.name, *STYLES)
    styled = in_styles(pictures, 1 + np.arange(len(pictures)) % len(STYLES), names)
    photos, looks = recogniser.embed(pictures), recogniser.embed(styled)
    pairs = np.triu_indices(len(people), 1)
    same = (people[:, None] == people)[pairs]
    cosines, across = (photos @ photos.T)[pairs], (photos @ looks.T)[pairs]
    threshold = float(np.quantile(cosines[~same], 1 - FALSE_ACCEPTS))
    return replace(
        recogniser.config,
        auc=round(area_under_roc(cosines[same], cosines[~same]), 4),
        accepted=round(float((cosines[same] > threshold).mean()), 4),
        threshold=round(threshold, 4),
        styled_auc=round(area_under_roc(across[same], across[~same]), 4),
    )


def area_under_roc(same: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"]) -> float:
    """How often a pair of one person is more alike than a pair of strangers."""
    below = np.searchsorted(np.sort(other), same)
    return float(below.mean() / len(other))


def _some_in_styles(
    pictures: np.ndarray, share: float, styles: tuple[str, ...], generator: torch.Generator
) -> np.ndarray:
    numbers = 1 + torch.randint(len(styles), (len(pictures),), generator=generator)
    numbers[torch.rand(len(pictures), generator=generator) >= share] = 0
    return in_styles(pictures, numbers.numpy(), (PHOTO.name, *styles))


def _varied(pictures: np.ndarray, generator: torch.Generator) -> Tensor:
    """Mirrored, shifted by up to 4 %, scaled by up to 10 % and turned by up to 8 degrees; still pictures."""

    def spread(most: float) -> Tensor:
        return (2 * torch.rand(len(pictures), generator=generator) - 1) * most

    angle, scale = spread(math.radians(8)), 1 + spread(0.1)
    mirror = 1 - 2 * (torch.rand(len(pictures), generator=generator) < 0.5).float()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([mirror * cos, -sin, spread(0.08)], 1), torch.stack([mirror * sin, cos, spread(0.08)], 1)]
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _in_another_light(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred (half of them), brighter or darker, with more or less contrast and colour, and a little noise."""

    def each(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(len(pixels), channels, 1, 1, generator=generator)

    blurred = nn.functional.avg_pool2d(nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.lerp(pixels, blurred, each(-1.0, 1.0).clamp(min=0))
    grey = pixels.mean(1, keepdim=True)
    pixels = torch.lerp(grey.expand_as(pixels), pixels, each(0.0, 1.3))
    pixels = pixels * each(0.75, 1.25) + each(-0.25, 0.25) + each(-0.08, 0.08, 3)
    return pixels + each(0.0, 0.08) * torch.randn(pixels.shape, generator=generator)


def _features(recogniser: FaceRecogniser, pictures: np.ndarray, batch: int = 128) -> Float[np.ndarray, "n features"]:
    """What the last layer sees of pictures, each together with its mirror image."""
    parts = []
    for start in range(0, len(pictures), batch):
        pixels = cut_out(torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch])), recogniser.config)
        parts.append((recogniser.features(pixels) + recogniser.features(pixels.flip(3))) / 2)
    return torch.cat(parts).numpy()
