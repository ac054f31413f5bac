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

BY_WORD = 0.5
"""The share of pictures that are drawn by a word that they have, each as likely: some words are rare."""

ASIDE = 7
"""One of so many people is kept aside, for the thresholds."""


def fresh_classifier(config: Classifier, styles: tuple[str, ...], seed: int) -> PictureClassifier:
    """One with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PictureClassifier(ClassifierConfig((PHOTO.name, *styles), config.attributes, config.channels))


def classifier_losses(
    classifier: PictureClassifier, bundle: Bundle, faces: Faces, batch: int, generator: torch.Generator
) -> Losses:
    """Cross entropy of the style and of the attributes, where a picture's file has words for them."""
    chosen = _chosen(classifier.config.attributes, faces, batch, generator)
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
    weights = _asked(faces, chosen, names).to(bundle.device)
    attribute = nn.functional.binary_cross_entropy_with_logits(attribute_scores, words, weights)
    return {"loss": style + attribute, "style": style, "attribute": attribute}


def parted(faces: Faces) -> tuple[Faces, Faces]:
    """The pictures to learn from, and those of the people kept aside."""
    people = {name: number for number, name in enumerate(dict.fromkeys(faces.identities))}
    aside = np.array([people[name] % ASIDE == ASIDE - 1 for name in faces.identities])
    return faces.take(np.flatnonzero(~aside)), faces.take(np.flatnonzero(aside))


@torch.inference_mode()
def settle_thresholds(classifier: PictureClassifier, faces: Faces) -> None:
    """Shift each attribute's scores so that 0 parts these photos best: the mean of the shares that are right, of those
    with the word and of those without it, is the highest. ``faces`` are of people it did not learn from; without any
    the thresholds stay.
    """
    if not len(faces):
        return
    names, everybody = classifier.config.attributes, np.arange(len(faces))
    scores = _scores(classifier, faces.pictures)
    truth, asked = _words(faces, everybody, names) > 0, _asked(faces, everybody, names) > 0
    first = len(classifier.config.styles)
    for n in range(len(names)):
        yes, no = (scores[asked[:, n] & (truth[:, n] == there), n].sort().values for there in (True, False))
        if len(yes) and len(no):
            found = 1 - torch.arange(len(yes)) / len(yes)  # of those that have it, at each of their scores or above
            right = found + torch.searchsorted(no, yes) / len(no)
            classifier.head.bias[first + n] -= yes[right.argmax()] - 1e-4


@torch.inference_mode()
def with_accuracy(classifier: PictureClassifier, faces: Faces, *, pictures: int = 600) -> ClassifierConfig:
    """Its config with what it gets right on pictures it was not trained on: every style of each, and its attributes."""
    chosen = np.linspace(0, len(faces) - 1, min(pictures, len(faces))).astype(int)
    right = []
    for index, name in enumerate(classifier.config.styles):
        styled = in_styles(faces.pictures[chosen], np.full(len(chosen), index), classifier.config.styles)
        right.append(np.mean([found == name for found in classifier.style_of(torch.from_numpy(styled))]))
    scores = _scores(classifier, faces.pictures) > 0
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


def _chosen(names: tuple[str, ...], faces: Faces, batch: int, generator: torch.Generator) -> np.ndarray:
    chosen = torch.randint(len(faces), (batch,), generator=generator)
    known = [faces.by_attribute[name] for name in names if name in faces.by_attribute]
    for row in range(round(BY_WORD * batch) if known else 0):
        found = known[int(torch.randint(len(known), (), generator=generator))]
        chosen[row] = found[int(torch.randint(len(found), (), generator=generator))]
    return chosen[torch.randperm(batch, generator=generator)].numpy()


def _scores(classifier: PictureClassifier, pictures: Pictures) -> Tensor:
    photos = torch.from_numpy(np.ascontiguousarray(pictures))
    return torch.cat([classifier(to_pixels(part))[1] for part in photos.split(256)])


def _asked(faces: Faces, chosen: np.ndarray, attributes: tuple[str, ...]) -> Tensor:
    """1 where the picture's file has the word at all."""
    said = [faces.said[faces.files[index] if faces.files else ""] for index in chosen]
    return torch.tensor([[float(word in words) for word in attributes] for words in said])


def _words(faces: Faces, chosen: np.ndarray, attributes: tuple[str, ...]) -> Tensor:
    return torch.tensor([[float(word in faces.attributes[index]) for word in attributes] for index in chosen])
