"""The subjects of an evaluation: one photo each is used, or a few; the others are held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import SettingsError
from core.lab.training.data import Faces, load_faces


@dataclass(frozen=True)
class Subject:
    """A person: the photo that is used, those that never are, and the words the data has for the photo.

    HyperDreamBooth and its ablations use the photos in ``more`` as well; the other methods see the one.
    """

    identity: str
    photo: UInt8[np.ndarray, "h w 3"]
    others: UInt8[np.ndarray, "n h w 3"]
    attributes: tuple[str, ...] = ()
    more: UInt8[np.ndarray, "m h w 3"] | None = None

    @property
    def photos(self) -> UInt8[np.ndarray, "n h w 3"]:
        """All the photos that are used."""
        return self.photo[None] if self.more is None else np.concatenate([self.photo[None], self.more])


def load_pictures(source: Path, resolution: int) -> Faces:
    """Pictures of subjects at ``resolution`` pixels: a parquet file of aligned faces, or a folder of anything.

    A folder has a subfolder for each subject with its pictures in it, as DreamBooth's own data set has; their centres
    are cut out as squares, and no words are known about them.

    Raises:
        SettingsError: there is no such file or folder, or no picture in it, or one cannot be read.
    """
    if source.is_file():
        return load_faces([source], resolution)
    kinds = Image.registered_extensions()
    files = sorted(file for file in source.glob("*/*") if file.suffix.lower() in kinds)
    if not files:
        raise SettingsError(f"{source}: give a parquet file, or a folder with a subfolder of pictures for each subject")
    pictures = np.stack([_square(file, resolution) for file in files])
    return Faces(pictures, tuple(file.parent.name for file in files), ((),) * len(files))


def _square(file: Path, resolution: int) -> UInt8[np.ndarray, "h w 3"]:
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise SettingsError(f"{file} is not a picture that can be read: {error}") from error
    return np.asarray(ImageOps.fit(upright, (resolution, resolution), Image.Resampling.LANCZOS))


def subjects(faces: Faces, people: int, *, photos: int = 1) -> list[Subject]:
    """The first ``people`` identities with more than ``photos`` pictures: so many are used, the rest are others."""
    several = [places for places in faces.by_identity.values() if len(places) > photos][:people]
    return [
        Subject(
            faces.identities[p[0]],
            faces.pictures[p[0]],
            faces.pictures[p[photos:]],
            faces.attributes[p[0]],
            faces.pictures[p[1:photos]] if photos > 1 else None,
        )
        for p in several
    ]


def generated_faces(faces: Faces, people: int, *, prefix: str = "omi") -> list[Subject]:
    """The first ``people`` generated faces (their identity starts with ``prefix``): their pictures may be published.

    Raises:
        SettingsError: there are none.
    """
    chosen = [index for index, identity in enumerate(faces.identities) if identity.startswith(prefix)][:people]
    if not chosen:
        raise SettingsError(f"--card draws generated faces, whose identity starts with {prefix!r}: the file has none")
    return [Subject(faces.identities[index], faces.pictures[index], faces.pictures[:0]) for index in chosen]
