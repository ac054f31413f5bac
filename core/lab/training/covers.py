"""The layers that see what covers a face: ``python -m core.lab.training.covers --faces TRAIN.parquet``.

Positives are photos behind sunglasses, and sunglasses and masks drawn on photos; negatives are photos without, half of
them behind clear glasses or with a beard. Of the photos with glasses the eighth whose eyes are darkest, by the cheeks,
are behind sunglasses; the lighter two thirds are not, and the others are left out. Writes the file into ``--output``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from core.hyperdreambooth.faces.dlib_recogniser import load_dlib_recogniser
from core.lab.training.cover_drawings import SHAPES, draw_mask, draw_sunglasses, move
from core.lab.training.data import Faces, load_faces
from core.photos.covers import FOLDER

log = logging.getLogger(__name__)

NAMES = ("eyes", "mouth")
"""What is covered, in the order of the layers."""

DECAY = 0.03
"""Of the squared weights, in the loss."""

_SUNGLASSES, _CLEAR = 0.13, 0.33  # of the photos with glasses, by how dark the eyes are


@dataclass(frozen=True)
class Example:
    """A face and whether eyes and mouth are covered."""

    face: Image.Image
    eyes: bool
    mouth: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, read features, fit, write."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.training.covers", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="parquet with columns image, identity, attributes")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where to write model.safetensors")
    parser.add_argument("--plain", type=int, default=1600, help="photos without a cover (default: 1600)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = list(examples(load_faces([args.faces], 128), args.plain, np.random.default_rng(args.seed)))
    log.info("%d faces", len(found))
    features = torch.from_numpy(np.stack([features_of(each.face) for each in found]))
    covered = torch.tensor([(each.eyes, each.mouth) for each in found]).float()
    weight, bias = fit(features, covered)
    args.output.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": weight.half(), "bias": bias}
    save_file(tensors, args.output / "model.safetensors", {"covers": json.dumps(NAMES)})


def examples(faces: Faces, plain: int, random: np.random.Generator) -> Iterator[Example]:
    """What is learnt from, each face moved a little."""
    sunglasses, clear = by_darkness(faces)
    bare = [n for n in range(len(faces)) if "glasses" not in faces.attributes[n]]
    random.shuffle(bare)
    beards = [n for n in bare if "beard" in faces.attributes[n]][: plain // 4]
    for number in sunglasses * 6:
        yield Example(_moved(faces, number, random), eyes=True, mouth=False)
    for number in [*bare[:plain], *beards, *clear]:
        yield Example(_moved(faces, number, random), eyes=False, mouth=False)
    for turn, number in enumerate([*bare[-plain // 2 :], *clear[:100], *beards, *sunglasses]):
        masked = draw_mask(_picture(faces, number), turn % SHAPES, random)
        yield Example(move(masked, random), eyes=number in sunglasses, mouth=True)
    for turn, number in enumerate(bare[-plain:]):
        worn = draw_sunglasses(_picture(faces, number), turn % SHAPES, random)
        both = turn % 8 == 0
        yield Example(
            move(draw_mask(worn, turn // 8 % SHAPES, random) if both else worn, random), eyes=True, mouth=both
        )


def by_darkness(faces: Faces) -> tuple[list[int], list[int]]:
    """The numbers of the photos behind sunglasses, and of those behind clear glasses."""
    glasses = [number for number in range(len(faces)) if "glasses" in faces.attributes[number]]
    ordered = sorted(glasses, key=lambda number: _eyes_by_cheeks(_picture(faces, number)))
    return ordered[: round(_SUNGLASSES * len(ordered))], ordered[round(_CLEAR * len(ordered)) :]


def features_of(face: Image.Image) -> Float[np.ndarray, " features"]:
    """What the covers' layers take in."""
    return load_dlib_recogniser()(face).features.reshape(-1)


def fit(features: Float[Tensor, "n features"], covered: Float[Tensor, "n covers"]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layers: logistic regression on features of unit spread, both classes of equal weight."""
    mean, spread = features.mean(0), features.std(0) + 0.05 * features.std()
    inputs = (features - mean) / spread
    weight = torch.zeros(covered.shape[1], features.shape[1], requires_grad=True)
    bias = torch.zeros(covered.shape[1], requires_grad=True)
    rarity = (covered == 0).sum(0) / (covered == 1).sum(0).clamp(min=1)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ weight.T + bias
        error = nn.functional.binary_cross_entropy_with_logits(logits, covered, pos_weight=rarity)
        total: Tensor = error + DECAY / 2 * (weight**2).sum()
        total.backward()
        return total

    optimizer.step(loss)
    scaled = weight.detach() / spread
    return scaled, bias.detach() - scaled @ mean


def _picture(faces: Faces, number: int) -> Image.Image:
    return Image.fromarray(faces.pictures[number])


def _moved(faces: Faces, number: int, random: np.random.Generator) -> Image.Image:
    return move(_picture(faces, number), random)


def _eyes_by_cheeks(face: Image.Image) -> float:
    """Luminance of the band of the eyes by that of the cheeks and the nose."""
    grey = np.asarray(face.convert("L").resize((128, 128)), dtype=float)
    return float(grey[54:66, 38:90].mean() / (grey[70:90, 40:88].mean() + 1))


if __name__ == "__main__":
    main()
