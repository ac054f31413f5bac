"""Writing pictures to files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from hyperdreambooth.client import Client
from hyperdreambooth.schemas import ImageInfo


class NoPictures(Exception):
    """There are no pictures, or not all that were asked for; says why."""


def write_pictures(client: Client, images: Iterable[ImageInfo], args: Namespace) -> list[str]:
    """Write the pictures into the folder `args.out` as `args.format`; returns the paths. Raises OSError."""
    args.out.mkdir(parents=True, exist_ok=True)
    return [_write(client, image, args) for image in images]


def _write(client: Client, image: ImageInfo, args: Namespace) -> str:
    file: Path = args.out / f"{image.id}.{args.format}"
    file.write_bytes(client.image(image, kind=args.format))
    return str(file)
