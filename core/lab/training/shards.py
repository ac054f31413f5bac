"""Pictures in files too large to be read at once: row groups of parquet files, and tar files as WebDataset has them.

A *shard* is what is read together. Nothing of it is kept but where it is and how many pictures it has.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow.parquet as pq

from core.errors import BundleError

COLUMNS = ("image", "identity", "attributes")
"""``image``: encoded bytes (or a struct with ``bytes``). The others may be absent: then everybody is somebody else."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the pictures in a tar file."""


@dataclass(frozen=True)
class Photo:
    """A picture, still encoded. ``number`` is its place among all pictures, in the order of the files."""

    number: int
    image: bytes
    identity: str
    attributes: tuple[str, ...]


@runtime_checkable
class Shard(Protocol):
    """Some pictures that are read together."""

    @property
    def first(self) -> int:
        """The number of the first picture."""

    @property
    def rows(self) -> int:
        """How many pictures there are."""

    def read(self, start: int, stop: int) -> Iterator[Photo]:
        """Its pictures ``start`` to ``stop``, never many of them in memory."""


@dataclass(frozen=True)
class RowGroup:
    """A row group of a parquet file."""

    file: Path
    group: int
    first: int
    rows: int

    def read(self, start: int, stop: int) -> Iterator[Photo]:
        """Rows ``start`` to ``stop``; what lies before them in the row group is read over."""
        with pq.ParquetFile(self.file) as file:
            columns = [name for name in COLUMNS if name in file.schema_arrow.names]
            place = 0
            for batch in file.iter_batches(batch_size=32, row_groups=[self.group], columns=columns):
                inside = range(max(start - place, 0), min(stop - place, batch.num_rows))
                for row in inside:
                    values = {name: batch.column(name)[row].as_py() for name in columns}
                    yield _photo(self.first + place + row, values)
                place += batch.num_rows
                if place >= stop:
                    return


@dataclass(frozen=True)
class Tar:
    """A tar file: ``<key>.jpg`` (or png, webp) beside ``<key>.json``, an object with ``identity`` and ``attributes``.

    ``places``: offset and length of each picture and of its JSON (0, 0: it has none).
    """

    file: Path
    first: int
    places: tuple[tuple[int, int, int, int], ...]

    @property
    def rows(self) -> int:
        """How many pictures it holds."""
        return len(self.places)

    def read(self, start: int, stop: int) -> Iterator[Photo]:
        """Pictures ``start`` to ``stop``."""
        with self.file.open("rb") as stream:
            for place in range(start, min(stop, self.rows)):
                image, image_size, about, about_size = self.places[place]
                stream.seek(image)
                data = stream.read(image_size)
                stream.seek(about)
                values = json.loads(stream.read(about_size)) if about_size else {}
                yield _photo(self.first + place, {**values, "image": data})


def open_shards(files: Sequence[Path]) -> list[Shard]:
    """The shards of parquet and tar files, in their order; only what the files say about themselves is read.

    Raises:
        BundleError: there are no files, one of another kind, or one that cannot be read.
    """
    if not files:
        raise BundleError("the recipe's data.train names no file that is there")
    shards: list[Shard] = []
    first = 0
    for file in files:
        try:
            found: Iterator[Shard] = _tar(file, first) if file.suffix == ".tar" else _row_groups(file, first)
            fresh = list(found)
        except (OSError, ValueError, tarfile.TarError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error
        shards += fresh
        first += sum(shard.rows for shard in fresh)
    return shards


def identity_labels(shards: Sequence[Shard]) -> dict[str, int]:
    """A number for each identity with at least two pictures, in order of appearance. Reads every picture's identity."""
    seen: dict[str, int] = {}
    for identity in _identities(shards):
        seen[identity] = seen.get(identity, 0) + 1
    several = [identity for identity, pictures in seen.items() if pictures > 1]
    return {identity: number for number, identity in enumerate(several)}


def _identities(shards: Sequence[Shard]) -> Iterator[str]:
    for shard in shards:
        if isinstance(shard, RowGroup):
            with pq.ParquetFile(shard.file) as file:
                if "identity" in file.schema_arrow.names:
                    yield from map(str, file.read_row_group(shard.group, columns=["identity"])["identity"].to_pylist())
        else:
            yield from (photo.identity for photo in shard.read(0, shard.rows))


def _photo(number: int, values: dict[str, Any]) -> Photo:
    image = values["image"]
    identity = values.get("identity")
    return Photo(
        number,
        image["bytes"] if isinstance(image, dict) else image,
        f"#{number}" if identity is None else str(identity),
        tuple(values.get("attributes") or ()),
    )


def _row_groups(file: Path, first: int) -> Iterator[RowGroup]:
    with pq.ParquetFile(file) as opened:
        if "image" not in opened.schema_arrow.names:
            raise ValueError("it has no column 'image'")
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            yield RowGroup(file, group, first, rows)
            first += rows


def _tar(file: Path, first: int) -> Iterator[Tar]:
    pictures: dict[str, tuple[int, int]] = {}
    about: dict[str, tuple[int, int]] = {}
    with tarfile.open(file, "r:") as members:
        for member in members:
            path = Path(member.name)
            if member.isfile() and path.suffix.lower() in (*PICTURES, ".json"):
                kind = about if path.suffix.lower() == ".json" else pictures
                kind[str(path.with_suffix(""))] = (member.offset_data, member.size)
    if pictures:
        yield Tar(file, first, tuple((*place, *about.get(key, (0, 0))) for key, place in pictures.items()))


def pictures_at(shards: Sequence[Shard], numbers: Sequence[int]) -> list[Photo]:
    """The pictures of some numbers, in the order of the files."""
    found: list[Photo] = []
    for shard in shards:
        inside = {number for number in numbers if shard.first <= number < shard.first + shard.rows}
        if inside:
            read = shard.read(min(inside) - shard.first, max(inside) + 1 - shard.first)
            found += [photo for photo in read if photo.number in inside]
    return found
