"""PNG files to pixels and back, with what the picture must say about itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MADE_WITH_AI = "made with AI"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)
"""The same for machines, as IPTC wants it."""


Pixels: TypeAlias = UInt8[np.ndarray, "h w 3"]


def decode(png: bytes) -> Pixels:
    """A PNG's pixels in RGB."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def stack(pictures: Sequence[Pixels]) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures as one array, all made as small as the smallest."""
    side = min(min(picture.shape[:2]) for picture in pictures)
    if all(picture.shape[:2] == (side, side) for picture in pictures):
        return np.stack(pictures)
    resized = [Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
    return np.stack([np.asarray(image) for image in resized])


def encode(pixels: Pixels, *, prompt: str, seed: int, subject_id: str) -> bytes:
    """A PNG that says which prompt, seed and subject it was made from, and that it was made with AI.

    Equal arguments give equal bytes.
    """
    notes = PngInfo()
    notes.add_itxt("Description", prompt)
    notes.add_text("Comment", MADE_WITH_AI)
    notes.add_text("Software", "HyperDreamBooth")
    notes.add_text("Seed", str(seed))
    notes.add_text("Subject", subject_id)
    notes.add_itxt("XML:com.adobe.xmp", _XMP)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=notes)
    return file.getvalue()
