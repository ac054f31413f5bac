from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hyperdreambooth.cli.pictures import write_pictures
from hyperdreambooth.schemas import ImageInfo


def picture(seed, identifier="img_1-0"):
    return ImageInfo(id=identifier, url="/", seed=seed, width=8, height=8)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a pencil sketch of a [V] face", "a-pencil-sketch-of-a-v-face-7.png"),
        ("[V]", "v-7.png"),
        ("../../etc/passwd\n\0; rm -rf ~", "etc-passwd-rm-rf-7.png"),
        ("Ölgemälde, 油絵", "ölgemälde-油絵-7.png"),
        ("word " * 200, "word-word-word-word-word-word-word-word-word-word-7.png"),
        ("𠀀" * 1000, f"{'𠀀' * 50}-7.png"),
        ("?!", "img_1-0.png"),
        (None, "img_1-0.png"),
    ],
)
def test_files_are_named_for_prompt_and_seed(tmp_path, prompt, name):
    client = SimpleNamespace(image=lambda _image, kind: b"pixels")
    args = Namespace(out=tmp_path / "out", format="png")
    assert write_pictures(client, [picture(7)], args, prompt) == [str(tmp_path / "out" / name)]


def test_no_picture_is_written_over_another(tmp_path):
    """Of two people with one prompt and one seed, say; the same picture again is the same file."""
    client = SimpleNamespace(image=lambda image, kind: image.id.encode())
    args = Namespace(out=tmp_path, format="webp")
    for _ in range(2):
        files = write_pictures(client, [picture(7), picture(7, "img_2-0"), picture(8)], args, "a [V] face")
        assert [Path(file).name for file in files] == ["a-v-face-7.webp", "a-v-face-7-2.webp", "a-v-face-8.webp"]
