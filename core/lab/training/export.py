"""Sample sheets and loss curves of a stage, and the finished bundle in diffusers' own format: safetensors in fp16."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from matplotlib.figure import Figure
from PIL import Image

from core.hyperdreambooth.formats.lidb_weights import LidbWeights
from core.hyperdreambooth.model.adapters import unstack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import sample_name
from core.hyperdreambooth.model.latents import decode_latents, encode_pictures
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.networks.module_file import save_module
from core.hyperdreambooth.prediction import face_pixels
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import generate, sample_latents, zeros
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.training.captions import CLAUSES, WITH
from core.lab.training.data import Faces
from core.lab.training.portable import make_portable

PROMPTS = (
    "a face",
    "a smiling woman with blond hair",
    "a man with a beard",
    "a pencil sketch of a face",
    "a neon sign of a face",
)
PERSONAL_PROMPTS = ("a [V] face", "a [V] face", "a pencil sketch of a [V] face", "a neon sign of a [V] face")


def export_bundle(bundle: Bundle, folder: Path) -> None:
    """Write pipeline, recogniser, hypernetwork and ``bundle.json``; what else lies in the folder stays.

    Without a hypernetwork, one of another base model that lies there goes.
    """
    pipeline = _pipeline(bundle)
    for module in bundle.modules:
        module.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    for module in bundle.modules:
        module.float()
    for name in bundle.text_encoders:
        _open_in_fp32(folder / name / "config.json")
    make_portable(folder)
    (folder / "bundle.json").write_text(bundle.config.to_json())
    if bundle.recogniser is not None:
        bundle.recogniser.save(folder)
    if bundle.hypernetwork is None:
        shutil.rmtree(folder / "hypernetwork", ignore_errors=True)
    else:
        save_module(folder / "hypernetwork", bundle.hypernetwork, bundle.hypernetwork.describe())


def _pipeline(bundle: Bundle) -> Any:
    parts: dict[str, Any] = {
        **bundle.parts,
        "tokenizer": bundle.tokenizer,
        "scheduler": bundle.scheduler,
        "feature_extractor": None,
    }
    if bundle.text_encoder_2 is None:
        return StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
    return StableDiffusionXLPipeline(
        **parts,
        tokenizer_2=bundle.tokenizer_2,
        force_zeros_for_empty_prompt=bundle.zero_empty,
        add_watermarker=False,
    )


def published_sheet(bundle: Bundle, file: Path, *, columns: int = 12) -> None:
    """A sheet without any photo: the base model's pictures for the prompts, one row each."""
    rows = [generate(bundle, [Row(prompt, seed=seed) for seed in range(columns)]) for prompt in PROMPTS]
    _tiled(rows).save(file)


def save_samples(bundle: Bundle, folder: Path, *, seed: int = 6) -> None:
    """A picture without a subject for each style that the bundle keeps and each attribute: samples that the API serves.

    All begin with the same noise, so that the face differs by the word alone, as far as the model lets it.
    """
    noun = f"a {bundle.class_noun}"
    prompts = {name: STYLES[name].phrasings[0].format(subject=noun) for name in bundle.config.finetune.styles}
    for word in bundle.config.attributes:
        prompts[word] = f"{noun}, {word}" if word in CLAUSES else f"{noun} with {WITH.get(word, (word,))[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = generate(bundle, [Row(prompt, seed=seed) for prompt in prompts.values()]) if prompts else ()
    for name, picture in zip(prompts, pictures, strict=True):
        Image.fromarray(picture.numpy()).save(folder / f"{sample_name(name)}.webp", quality=85, method=6)


def _tiled(rows: Sequence[torch.Tensor]) -> Image.Image:
    return Image.fromarray(torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0).numpy())


def _open_in_fp32(file: Path) -> None:
    """Transformers opens weights in the precision of their config, diffusers in fp32: say fp32, so that they agree."""
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": "float32"}, indent=2) + "\n")


def sample_sheet(bundle: Bundle, stage: str, faces: Faces, folder: Path, *, columns: int = 8) -> None:
    """``samples.png`` and, from the losses so far, ``losses.png``."""
    chosen = np.linspace(0, len(faces) - 1, columns).astype(int)
    photos = torch.from_numpy(faces.pictures[chosen])
    if stage in {"autoencoder", "decoder"}:
        rows = [photos, decode_latents(bundle, encode_pictures(bundle, photos)).cpu()]
    elif stage in {"classifier", "recogniser"}:
        rows = [torch.from_numpy(style.apply(photos.numpy())) for style in STYLES.values()]
    else:
        rows = [photos, *_generated(bundle, photos)]
    folder.mkdir(parents=True, exist_ok=True)
    image = _tiled(rows)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(folder / "samples.png")
    _plot(folder)


@torch.inference_mode()
def _generated(bundle: Bundle, photos: torch.Tensor) -> list[torch.Tensor]:
    unpersonalized = [zeros(bundle)] * len(photos)
    people = [unpersonalized] * len(PROMPTS)
    if bundle.hypernetwork is not None:
        person = bundle.basis.merge(bundle.hypernetwork(face_pixels(bundle, bundle.hypernetwork, photos)))
        people += [unstack(person)] * len(PERSONAL_PROMPTS)
    return [
        decode_latents(bundle, _sample(bundle, [Row(prompt, seed=seed) for seed in range(len(photos))], who)).cpu()
        for prompt, who in zip(PROMPTS + PERSONAL_PROMPTS, people, strict=False)
    ]


def _sample(bundle: Bundle, rows: list[Row[LidbWeights]], people: list[LayerFactors]) -> torch.Tensor:
    size = (bundle.resolution, bundle.resolution)
    return sample_latents(bundle, rows, people, steps=bundle.config.sampling.steps, size=size)


def _plot(folder: Path) -> None:
    file = folder / "losses.csv"
    if not file.is_file():
        return
    with file.open() as stream:
        records = list(csv.DictReader(stream))
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for name in [name for name in records[0] if name not in ("step", "rows", "seconds")]:
        points = [(int(r["step"]), float(r[name])) for r in records if r[name]]
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(folder / "losses.png", dpi=100, bbox_inches="tight")
