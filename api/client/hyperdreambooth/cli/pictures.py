"""Writing pictures to files."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from hyperdreambooth.client import Client
from hyperdreambooth.schemas import ImageInfo

MAX_NAME = 50
"""Characters of a prompt in a file's name: with four bytes each they stay below what file systems allow."""


class NoPictures(Exception):
    """There are no pictures, or not all that were asked for; says why."""


def write_pictures(client: Client, images: Iterable[ImageInfo], args: Namespace, prompt: str | None) -> list[str]:
    """Write pictures of a prompt into the folder `args.out` as `args.format`; returns the paths. Raises OSError.

    Files are named for prompt and seed, `a-pencil-sketch-of-a-v-face-7.png`; where another picture has the name, a
    number is added.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    return [_write(client.image(image, kind=args.format), _name(prompt, image), args) for image in images]


def _name(prompt: str | None, image: ImageInfo) -> str:
    """What is left of the prompt as a part of a file's name, and the seed."""
    words = re.findall(r"\w+", (prompt or "").lower())
    return f"{'-'.join(words)[:MAX_NAME].strip('-')}-{image.seed}" if words else image.id


def _write(data: bytes, name: str, args: Namespace) -> str:
    for number in count(1):
        file: Path = args.out / f"{name}{f'-{number}' if number > 1 else ''}.{args.format}"
        if not file.exists() or file.read_bytes() == data:
            break
    file.write_bytes(data)
    return str(file)
