"""The engine of test keys: fixed pictures at once, of people who do not exist, and weights that change nothing.

It needs no model and no device. A seed of FAILS makes its job fail, so that callers can see what they do then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from safetensors.numpy import save

from core.errors import InternalFault, JobCanceled
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.formats.lidb_file import WeightsMetadata
from core.hyperdreambooth.model.config import BundleConfig, LidbConfig
from core.hyperdreambooth.model.target import Target
from core.settings import EMBEDDED_BUNDLE, Settings
from worker.engine import OnProgress, Personalized, PersonalizeOptions, Row
from worker.identities import Embeddings

FAILS = 4_000_000_002
"""A job with this seed fails; the digits are those of Stripe's card that is always declined."""
_STEPS, _RANK = 4, 1
_LAYER = Target("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 1280, 1280)
"""One that a Stable Diffusion 1.5 has, so that other programs open the exported files."""
_LIKENESS = 0.5


class FixedEngine:
    """See Engine."""

    name = "test"
    fingerprint = "test"
    description = None

    def __init__(self, settings: Settings) -> None:
        """Pictures have the size that those of the bundle of the settings have."""
        config = Path(settings.bundle) / "bundle.json"
        known = BundleConfig.from_json(config.read_text()) if config.is_file() else BundleConfig(name="")
        self._side = known.resolution

    @property
    def layout(self) -> Layout:
        """See Engine."""
        pins: dict[str, str | int] = {"bundle": self.name, "fingerprint": self.fingerprint, "basis": "test"}
        return Layout(pins=pins, lidb=LidbConfig(), layers=(_LAYER,), resolution=self._side, text_width=768)

    def check(self) -> None:
        """See Engine: there is no device."""

    def device_memory(self) -> dict[str, int]:
        """See Engine."""
        return {}

    def personalize(
        self,
        photos: UInt8[np.ndarray, "n h w 3"],  # noqa: ARG002 - whoever is in them, the pictures are fixed
        options: PersonalizeOptions,
        *,
        on_progress: OnProgress,
        on_preview: Callable[[bytes], None],
        should_stop: Callable[[], bool],
    ) -> Personalized:
        """See Engine: the previews come as they do from a model."""
        weights = _weights()
        on_progress("hypernetwork", 1, 1)
        if options.start is None:
            on_preview(weights)
        self._play("finetune", (options.seed,), on_progress, should_stop)
        if options.start is None:
            on_preview(weights)
        return Personalized(
            weights, weights, likeness_by={"test": _LIKENESS}, kept_step=_STEPS, seconds={"finetune": 0.0}
        )

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """See Engine."""
        self._play("generate", (), on_progress, should_stop)
        return _picture(row, self._side, self._side)

    def embed(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Embeddings:
        """See Engine: all are equally alike."""
        return {"test": np.full((len(pictures), 2), (_LIKENESS / 2) ** 0.5)}

    def generate(
        self,
        rows: Sequence[Row],
        *,
        steps: int | None,  # noqa: ARG002 - there is nothing to be refined
        height: int | None,
        width: int | None,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """See Engine: the sample of the style that the prompt names, with its seed."""
        self._play("generate", [row.seed for row in rows], on_progress, should_stop)
        return np.stack([_picture(row, height or self._side, width or self._side) for row in rows])

    def _play(self, stage: str, seeds: Sequence[int], on_progress: OnProgress, should_stop: Callable[[], bool]) -> None:
        for step in range(1, _STEPS + 1):
            if should_stop():
                raise JobCanceled
            on_progress(stage, step, _STEPS)
        if FAILS in seeds:
            raise InternalFault(f"With a test key the seed {FAILS} always fails.")


def _weights() -> bytes:
    """A .lidb file of zeros."""
    about = WeightsMetadata(
        bundle=FixedEngine.name,
        fingerprint=FixedEngine.fingerprint,
        targets="test",
        layers=1,
        basis="test",
        basis_seed=0,
        preset="attention",
        rank=_RANK,
        kind="lidb",
        precision="int8",
        class_noun="face",
        identifier="sks",
        prompt="a sks face",
        kept_step=_STEPS,
    )
    config = LidbConfig()
    numbers = sum(_LAYER.capped(config.a, config.b)) * _RANK
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "values": np.zeros(numbers, np.int8),
        "scales": np.ones(2 * _RANK, np.float16),
    }
    return save(tensors, {"lidb": json.dumps(asdict(about))})


@lru_cache(maxsize=64)
def _sample(name: str, height: int, width: int) -> Image.Image:
    """The sample of a style, or the face of the demo where none is so called."""
    file = EMBEDDED_BUNDLE / "samples" / f"{name}.webp"
    with Image.open(file if name else EMBEDDED_BUNDLE / "demo-face.png") as picture:
        return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@lru_cache(maxsize=1)
def _styles() -> dict[str, str]:
    """The name of each sample's file, by the words that a prompt has for it."""
    return {file.stem.replace("-", " "): file.stem for file in sorted((EMBEDDED_BUNDLE / "samples").glob("*.webp"))}


def _picture(row: Row, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """What the prompt names, marked as a test, and not to be taken for the work of the model."""
    name = next((file for words, file in _styles().items() if words in row.prompt.lower()), "")
    picture = _sample(name, height, width).copy()
    pen = ImageDraw.Draw(picture)
    size = max(10, height // 7)
    pen.rectangle((0, height - size - 2, width, height), fill="black")
    pen.text((width / 2, height - 1), f"TEST {row.seed}", fill="white", anchor="md", font_size=size)
    return np.asarray(picture)
