"""The layers that read words off a photo: ``python -m core.lab.training.photo_words --faces A.parquet B.parquet``.

Ridge regression of each word, of yaw and of pitch on dlib's features. Every seventh person is kept aside; a word's
threshold is the lowest at which nine of ten photos of them that are given the word have it. Words that the person does
not take off belong to identity and are left out. Writes the file into ``--output`` and what was measured to the log.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from tqdm import tqdm

from core.hyperdreambooth.faces.photo_words import DEGREES, FOLDER
from core.hyperdreambooth.model.latents import to_pixels
from core.lab.training.data import load_faces
from core.lab.training.teacher import FaceTeacher

log = logging.getLogger(__name__)

NAMES = (
    "smiling", "serious", "mouth open", "mouth wide open", "looking left", "looking right", "facing the camera",
    "looking up", "looking down", "turned to the side", "glasses", "hat", "bangs", "beard", "lipstick", "heavy makeup",
)  # fmt: skip
"""Words of captions that may change from one photo of a person to the next."""

RIGHT = 0.9
RIDGE = 3e3
ASIDE = 7


def main(arguments: Sequence[str] | None = None) -> None:
    """Read features, fit, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m core.lab.training.photo_words", description=__doc__)
    parser.add_argument("--faces", type=Path, nargs="+", required=True, help="parquet files with words, yaw and pitch")
    parser.add_argument("--teacher", type=Path, required=True, help="dlib's network as a safetensors file")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where to write model.safetensors")
    parser.add_argument("--photos", type=int, default=7000, help="learnt from, at most (default: 7000)")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    faces = load_faces(args.faces, 128)
    turned = np.concatenate([_turns(file) for file in args.faces])
    chosen = np.random.default_rng(0).permutation(len(faces))[: args.photos]
    features = features_of(FaceTeacher(args.teacher).eval(), faces.pictures[chosen])
    said = np.array([[word in faces.attributes[index] for word in NAMES] for index in chosen])
    people = {name: number for number, name in enumerate(dict.fromkeys(faces.identities))}
    aside = np.array([people[faces.identities[index]] % ASIDE == 0 for index in chosen])
    targets = np.c_[2.0 * said - 1, turned[chosen] / DEGREES]
    weight, bias = ridge(features[~aside], targets[~aside])
    scores = features[aside] @ weight.T + bias
    threshold = [cut(scores[:, n], said[aside, n]) for n in range(len(NAMES))]
    report(scores, said[aside], targets[aside], threshold)
    kept = [n for n in range(len(NAMES)) if threshold[n] is not None] + [len(NAMES), len(NAMES) + 1]
    names = [(*NAMES, "yaw", "pitch")[n] for n in kept]
    limits = [0.0 if n >= len(NAMES) else float(threshold[n] or 0.0) for n in kept]
    args.output.mkdir(parents=True, exist_ok=True)
    tensors = {
        "weight": torch.from_numpy(weight[kept]).half(),
        "bias": torch.from_numpy(bias[kept]).float(),
        "threshold": torch.tensor(limits),
    }
    save_file(tensors, args.output / "model.safetensors", {"words": json.dumps(names)})


@torch.inference_mode()
def features_of(teacher: FaceTeacher, pictures: np.ndarray, batch: int = 32) -> Float[np.ndarray, "n 2048"]:
    """What the layers take in: the features before dlib's last two residuals, as ``photo_words.pooled`` has them."""
    parts = []
    for start in tqdm(range(0, len(pictures), batch), desc="features", unit="batch"):
        pixels = to_pixels(torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch])))
        places = torch.nn.functional.avg_pool2d(teacher.features(pixels, "w39"), 2)
        parts.append(places.permute(0, 2, 3, 1).flatten(1).numpy())
    return np.concatenate(parts)


def ridge(
    features: Float[np.ndarray, "n m"], targets: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, "k m"], Float[np.ndarray, " k"]]:
    """Weight and bias of the least squares layers, on features of unit spread."""
    mean, spread = features.mean(0), features.std(0) + 1e-3
    inputs = (features - mean) / spread
    middle = targets.mean(0)
    gram = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
    weight = (np.linalg.solve(gram, inputs.T @ (targets - middle)) / spread[:, None]).T
    return weight, middle - weight @ mean


def cut(scores: Float[np.ndarray, " n"], said: Bool[np.ndarray, " n"]) -> float | None:
    """The lowest threshold above which the word is right often enough; None where there is none."""
    order = np.argsort(-scores)
    right = np.cumsum(said[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero((right >= RIGHT) & (np.arange(len(order)) >= 4))
    return float(scores[order[reached[-1]]]) if len(reached) else None


def report(scores: np.ndarray, said: np.ndarray, targets: np.ndarray, threshold: Sequence[float | None]) -> None:
    """A line for each word: how many photos have it, how many of those are given it, how often that is right."""
    for n, word in enumerate(NAMES):
        limit = threshold[n]
        if limit is None:
            log.info("%s: left out, %d photos", word, said[:, n].sum())
            continue
        given = scores[:, n] >= limit
        log.info(
            "%s: %d photos, found %.2f, right %.2f",
            word, said[:, n].sum(), said[given, n].sum() / max(1, said[:, n].sum()), said[given, n].mean(),
        )  # fmt: skip
    for n, turn in enumerate(("yaw", "pitch"), start=len(NAMES)):
        log.info("%s: correlation %.3f", turn, np.corrcoef(scores[:, n], targets[:, n])[0, 1])


def _turns(file: Path) -> Float[np.ndarray, "n 2"]:
    table = pq.read_table(file, columns=["yaw", "pitch"])
    columns = [np.nan_to_num(np.array(table[name].to_pylist(), dtype=float)) for name in ("yaw", "pitch")]
    return np.stack(columns, axis=1)


if __name__ == "__main__":
    main()
