"""Training pictures: parquet files of faces, and the cache of their latents, plain and stylised."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.training.precision import autocast, quickest
from core.lab.training.warp import warp
from core.lab.training.words import WORD_COLUMNS, words_of


@dataclass(frozen=True)
class Faces:
    """Aligned pictures with who they are of, words for what is to be seen (``words_of``), and which file they are of.

    A word that no picture of a file has was not asked there: a missing one says nothing.
    """

    pictures: UInt8[np.ndarray, "n h w 3"]
    identities: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.identities)

    @cached_property
    def labels(self) -> UInt8[np.ndarray, " n"] | np.ndarray:
        """A number for each identity that has at least two pictures, in order of appearance; -1 for the others."""
        numbers: dict[str, int] = {}
        several = [identity for identity in self.identities if len(self.by_identity[identity]) > 1]
        for identity in several:
            numbers.setdefault(identity, len(numbers))
        return np.array([numbers.get(identity, -1) for identity in self.identities])

    def of_first(self, identities: int) -> Faces:
        """The pictures of the first so many identities that have at least two."""
        return self.take(np.flatnonzero((self.labels >= 0) & (self.labels < identities)))

    def take(self, chosen: Sequence[int] | np.ndarray) -> Faces:
        """The pictures at these places."""
        return Faces(
            self.pictures[chosen],
            tuple(self.identities[index] for index in chosen),
            tuple(self.attributes[index] for index in chosen),
            tuple(self.files[index] for index in chosen) if self.files else (),
        )

    def warped(self, copies: int, side: int, *, seed: int) -> Faces:
        """So many synthetic faces from each picture, each of another identity, ``side`` pixels wide."""
        pictures = [warp(self.pictures, side, seed=seed + copy) for copy in range(copies)]
        names = [f"warp {copy} of picture {number}" for copy in range(copies) for number in range(len(self))]
        return Faces(np.concatenate(pictures), tuple(names), self.attributes * copies)

    def __add__(self, others: Faces) -> Faces:
        """These and others."""
        return Faces(
            np.concatenate([self.pictures, others.pictures]),
            self.identities + others.identities,
            self.attributes + others.attributes,
        )

    @cached_property
    def said(self) -> dict[str, frozenset[str]]:
        """The words that pictures of each file are given; all are of the file "" where none is named."""
        words: dict[str, set[str]] = {}
        for file, found in zip(self.files or ("",) * len(self), self.attributes, strict=True):
            words.setdefault(file, set()).update(found)
        return {file: frozenset(found) for file, found in words.items()}

    @cached_property
    def by_identity(self) -> dict[str, list[int]]:
        """The pictures of each identity."""
        pictures: dict[str, list[int]] = {}
        for index, identity in enumerate(self.identities):
            pictures.setdefault(identity, []).append(index)
        return pictures

    @cached_property
    def by_attribute(self) -> dict[str, list[int]]:
        """The pictures that show each attribute."""
        pictures: dict[str, list[int]] = {}
        for index, words in enumerate(self.attributes):
            for word in words:
                pictures.setdefault(word, []).append(index)
        return pictures


def load_faces(files: Sequence[Path], resolution: int, *, cache: Path | None = None) -> Faces:
    """All pictures of the parquet files at ``resolution`` pixels; decoded once when a ``cache`` file is given."""
    rows = [row for file in files for row in pq.read_table(file, columns=_columns(file)).to_pylist()]
    key = json.dumps([[file.name, file.stat().st_size, pq.read_metadata(file).num_rows] for file in files])
    pictures = None if cache is None else kept_numbers(cache, key)
    if pictures is None:
        pictures = np.stack([decode_picture(row["image"], resolution) for row in rows])
        if cache is not None:
            keep_numbers(cache, key, pictures)
    names = tuple(file.name for file in files for _ in range(pq.read_metadata(file).num_rows))
    return Faces(pictures, tuple(str(row["identity"]) for row in rows), tuple(words_of(row) for row in rows), names)


def _columns(file: Path) -> list[str]:
    """Those that make a face, of the file's."""
    return [name for name in ("image", "identity", *WORD_COLUMNS) if name in pq.read_schema(file).names]


class LatentCache:
    """Latents of every picture: plain, mirrored, and in a few styles chosen for it (some of those mirrored).

    Mirrored latents are those of the mirrored picture, nearly: the autoencoder learns to decode them so.
    """

    def __init__(
        self, plain: Tensor, styled: Tensor, styles: np.ndarray, mirrored: np.ndarray, names: tuple[str, ...]
    ) -> None:
        self.plain, self.styled, self.styles, self.mirrored, self.names = plain, styled, styles, mirrored, names

    @classmethod
    def build(
        cls, bundle: Bundle, faces: Faces, names: tuple[str, ...], *, styled: int, seed: int, file: Path
    ) -> LatentCache:
        """Encode everything once; a file from an earlier run with the same autoencoder is read instead."""
        rng = np.random.default_rng(seed)
        styles = rng.integers(len(names), size=(len(faces), styled))
        mirrored = rng.random((len(faces), styled)) < 0.5
        key = json.dumps([len(faces), int(faces.pictures.sum(dtype=np.int64)), styled, seed, names, _checksum(bundle)])
        kept = kept_numbers(file, key)
        if kept is not None:
            stored = torch.from_numpy(kept)
        else:
            plain = _encode(bundle, faces.pictures, "plain")
            stored = torch.stack(
                [plain, plain.flip(3)]
                + [
                    _encode(bundle, _stylise(faces.pictures, styles[:, k], mirrored[:, k], names), f"styled {k + 1}")
                    for k in range(styled)
                ],
                dim=1,
            )
            keep_numbers(file, key, stored.numpy())
        return cls(stored[:, :2], stored[:, 2:], styles, mirrored, names)

    def __add__(self, others: LatentCache) -> LatentCache:
        """Those of these pictures and of others, in the same styles."""
        return LatentCache(
            torch.cat([self.plain, others.plain]),
            torch.cat([self.styled, others.styled]),
            np.concatenate([self.styles, others.styles]),
            np.concatenate([self.mirrored, others.mirrored]),
            self.names,
        )


def kept_numbers(file: Path, key: str) -> np.ndarray | None:
    """What ``keep_numbers`` put there under the same key."""
    stamp = file.with_suffix(".json")
    if not (file.is_file() and stamp.is_file() and stamp.read_text() == key):
        return None
    found: np.ndarray = np.load(file, allow_pickle=False)
    return found


def keep_numbers(file: Path, key: str, numbers: np.ndarray) -> None:
    """The stamp comes last: a file without one is not whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stamp = file.with_suffix(".json")
    stamp.unlink(missing_ok=True)
    np.save(file, numbers, allow_pickle=False)
    stamp.write_text(key)


def _encode(bundle: Bundle, pictures: np.ndarray, name: str, batch: int = 64) -> Float[Tensor, "n c h w"]:
    parts = []
    with torch.inference_mode(), autocast(bundle.device, quickest(bundle.device)):
        for start in tqdm(range(0, len(pictures), batch), desc=f"latents, {name}", unit="batch"):
            chunk = torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch]))
            parts.append(encode_pictures(bundle, chunk).to("cpu", torch.float16))
    return torch.cat(parts)


def _stylise(pictures: np.ndarray, styles: np.ndarray, mirrored: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    result = np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)
    for index, name in enumerate(names):
        for chunk in np.array_split(np.flatnonzero(styles == index), max(1, (styles == index).sum() // 256)):
            if len(chunk):
                result[chunk] = STYLES[name].apply(result[chunk])
    return result


def decode_picture(data: bytes, resolution: int) -> UInt8[np.ndarray, "h w 3"]:
    """An encoded square picture as pixels, ``resolution`` on a side."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if picture.size != (resolution, resolution):
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _checksum(bundle: Bundle) -> float:
    """Of what makes latents: the decoder may change."""
    parameters = [*bundle.vae.encoder.parameters(), *bundle.vae.quant_conv.parameters()]
    return float(sum(p.detach().double().abs().sum() for p in parameters))
