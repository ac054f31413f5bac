"""PNG files to pixels and back, with what the picture must say about itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from unicodedata import category

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.records import GenerateRequest, PictureNote

MADE_WITH_AI = "made with AI"
_NAMES = {PictureNote.PROMPT: "Description", PictureNote.SEED: "Seed", PictureNote.SUBJECT: "Subject"}
"""Under which keyword of PNG each note is."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what ends lines, turns the direction, or cannot be seen or written."""
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


def notes_of(request: GenerateRequest, seed: int) -> dict[PictureNote, str]:
    """What the picture with this seed is to say of how it was made: what its caller asked for."""
    subjects = ", ".join(request.subject_ids)
    every = {PictureNote.PROMPT: request.prompt, PictureNote.SEED: str(seed), PictureNote.SUBJECT: subjects}
    return {note: text for note, text in every.items() if note in request.metadata}


def encode(pixels: Pixels, said: Mapping[PictureNote, str]) -> bytes:
    """A PNG that says that it was made with AI, and of how it was made what is in `said`, a line each.

    Equal arguments give equal bytes.
    """
    notes = PngInfo()
    for note, name in _NAMES.items():
        if note in said:
            notes.add_itxt(name, one_line(said[note]))
    notes.add_text("Comment", MADE_WITH_AI)
    notes.add_text("Software", "HyperDreamBooth")
    notes.add_itxt("XML:com.adobe.xmp", _XMP)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def one_line(text: str) -> str:
    """The text as one line that is read as it is written: line breaks, control characters and marks that turn the
    direction are written as in a Python string (`\\n`, `\\u202e`), and so is the backslash.
    """
    return "".join(_escaped(each) if each == "\\" or category(each) in _UNSEEN else each for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
