"""A face sampled from the bundle's own base model: the photo of the demo."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from core.errors import BundleError, PhotoRefused
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import generate
from core.lab.training.recipe import DemoFace
from core.photos.check import find_face

SIDE = 256
"""Pixels: a size at which a user's browser and the face detector can do something with the picture."""


def save_demo_face(bundle: Bundle, config: DemoFace, file: Path) -> None:
    """Sample the recipe's face and write it to ``file``.

    Raises:
        BundleError: the detector does not accept it.
    """
    picture = generate(bundle, [Row(config.prompt, seed=config.seed)])[0].numpy()
    large = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    try:
        find_face(large)
    except PhotoRefused as error:
        raise BundleError(f"the sampled face is refused: {error.detail} Choose another seed.") from error
    large.save(file)
