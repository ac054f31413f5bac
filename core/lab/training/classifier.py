"""The stage of the classifier: real pictures, as they are and through the style filters, half of them re-encoded.

The pictures it will measure come out of the autoencoder's decoder, so half of its training pictures do so as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from core.hyperdreambooth.faces.photo_words import mirrored
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import decode_latents, encode_pictures, to_pixels
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.training.data import Faces
from core.lab.training.loop import Losses
from core.lab.training.recipe import Classifier

Pictures = np.ndarray

WEIGHT_OF_RARE = 4.0
"""How much more a word that is there weighs than one that is not: most pictures show none of them."""


def fresh_classifier(config: Classifier, styles: tuple[str, ...], seed: int) -> PictureClassifier:
    """One with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PictureClassifier(ClassifierConfig((PHOTO.name, *styles), config.attributes, config.channels))


def classifier_losses(
    classifier: PictureClassifier, bundle: Bundle, faces: Faces, batch: int, generator: torch.Generator
) -> Losses:
    """Cross entropy of the style and of the attributes (of pictures that have words); rare words weigh more."""
    chosen = torch.randint(len(faces), (batch,), generator=generator).numpy()
    styles = torch.randint(len(classifier.config.styles), (batch,), generator=generator)
    styles[: batch // 4] = 0
    pictures = in_styles(faces.pictures[chosen], styles.numpy(), classifier.config.styles)
    with torch.no_grad():
        pictures[::2] = decode_latents(bundle, encode_pictures(bundle, torch.from_numpy(pictures[::2]))).cpu()
    pixels = to_pixels(torch.from_numpy(pictures))
    flip = torch.rand(batch, generator=generator) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    pixels = pixels + 0.05 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(
        pixels.shape, generator=generator
    )
    style_scores, attribute_scores = classifier(pixels.to(bundle.device))
    style = nn.functional.cross_entropy(style_scores, styles.to(bundle.device))
    names = classifier.config.attributes
    words = torch.where(flip[:, None], _words(faces, chosen, mirrored(names)), _words(faces, chosen, names))
    words = words.to(bundle.device)
    labelled = torch.tensor([bool(faces.attributes[index]) for index in chosen]).to(bundle.device)
    weights = (words * WEIGHT_OF_RARE + 1 - words) * labelled[:, None]
    attribute = nn.functional.binary_cross_entropy_with_logits(attribute_scores, words, weights)
    return {"loss": style + attribute, "style": style, "attribute": attribute}


@torch.inference_mode()
def with_accuracy(classifier: PictureClassifier, faces: Faces, *, pictures: int = 600) -> ClassifierConfig:
    """Its config with what it gets right on pictures it was not trained on: every style of each, and its attributes."""
    chosen = np.linspace(0, len(faces) - 1, min(pictures, len(faces))).astype(int)
    right = []
    for index, name in enumerate(classifier.config.styles):
        styled = in_styles(faces.pictures[chosen], np.full(len(chosen), index), classifier.config.styles)
        right.append(np.mean([found == name for found in classifier.style_of(torch.from_numpy(styled))]))
    photos = torch.from_numpy(np.ascontiguousarray(faces.pictures))
    scores = torch.cat([classifier(to_pixels(part))[1] for part in photos.split(256)]) > 0
    truth = _words(faces, np.arange(len(faces)), classifier.config.attributes) > 0
    balanced = {
        word: round(float((scores[truth[:, n], n].float().mean() + (~scores[~truth[:, n], n]).float().mean()) / 2), 4)
        for n, word in enumerate(classifier.config.attributes)
        if 0 < int(truth[:, n].sum()) < len(truth)
    }
    return replace(classifier.config, style_accuracy=round(float(np.mean(right)), 4), attribute_accuracy=balanced)


def in_styles(pictures: Pictures, styles: np.ndarray, names: tuple[str, ...]) -> Pictures:
    """Each picture through the filter of its style's number."""
    result = np.ascontiguousarray(pictures).copy()
    for index in np.unique(styles):
        where = np.flatnonzero(styles == index)
        if names[index] != PHOTO.name:
            result[where] = STYLES[names[index]].apply(result[where])
    return result


def _words(faces: Faces, chosen: np.ndarray, attributes: tuple[str, ...]) -> Tensor:
    return torch.tensor([[float(word in faces.attributes[index]) for word in attributes] for index in chosen])
