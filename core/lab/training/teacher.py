"""dlib's face recognition network (CC0) out of a safetensors file: a teacher of likeness, in PyTorch.

The file's metadata list what is done, in order; its tensors are named there. What learns from this network is never
measured by it alone.
"""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from core.hyperdreambooth.model.latents import to_pixels

SIDE = 150
"""Pixels of the network's input."""

CROP = (0.156, 0.844, 0.259, 0.947)
"""Left, right, top and bottom of that input in the framing of ``faces.alignment.FRAME``, as fractions of its side."""

TEACHER_LOSSES = ("features", "identity")
"""The names of a teacher's losses."""


class FaceTeacher(nn.Module):
    """Aligned faces to 128 numbers, compared by Euclidean distance: one person's are nearer than 0.56, mostly.

    Of the features on the way, those after ``every`` third residual count.
    """

    every = 3

    def __init__(self, file: Path) -> None:
        super().__init__()
        with safe_open(file, framework="pt") as stream:
            self.ops = json.loads(stream.metadata()["ops"])
        for name, tensor in load_file(file).items():
            self.register_buffer(name, tensor.float())

    def features(self, pixels: Float[Tensor, "n 3 h w"], before: str) -> Float[Tensor, "n c high wide"]:
        """What the convolution of this name takes in, for pictures in [-1, 1]."""
        return self._run(pixels, before)[0]

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n numbers"], list[Tensor]]:
        """Embeddings (dlib's are 128 numbers) of pictures in [-1, 1], and the features after every residual."""
        return self._run(pixels)

    def _run(self, pixels: Float[Tensor, "n 3 h w"], before: str | None = None) -> tuple[Tensor, list[Tensor]]:
        x, tags, seen = self._input(pixels), {}, []
        for kind, *arguments in takewhile(lambda operation: before is None or before not in operation, self.ops):
            if kind == "con":
                weight, bias, stride, padding = arguments
                x = functional.conv2d(x, self.get_buffer(weight), self.get_buffer(bias).flatten(), stride, padding)
            elif kind == "affine":
                x = x * self.get_buffer(arguments[0]) + self.get_buffer(arguments[1])
            elif kind == "relu":
                x = functional.relu(x)
            elif kind == "max_pool":
                x = functional.max_pool2d(x, arguments[0], arguments[1])
            elif kind == "avg_pool":
                x = functional.avg_pool2d(x, arguments[0], arguments[1]) if arguments[0] else x.mean((2, 3))
            elif kind == "tag":
                tags[arguments[0]] = x
            elif kind == "skip":
                x = tags[arguments[0]]
            elif kind == "add":
                x = _added(x, tags[arguments[0]])
                seen.append(x)
            else:
                x = x @ self.get_buffer(arguments[0])
        return x, seen

    def losses(self, made: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """How far what the network sees in pictures is from what it sees in others: on its way, and at its end."""
        with torch.no_grad():
            wanted, wanted_features = self(target)
        numbers, features = self(made)
        apart = [
            (one - other).abs().mean() / other.abs().mean().clamp(min=1e-6)
            for one, other in zip(features[:: self.every], wanted_features[:: self.every], strict=True)
        ]
        return dict(
            zip(TEACHER_LOSSES, (torch.stack(apart).mean(), (numbers - wanted).norm(dim=1).mean()), strict=True)
        )

    def _input(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 150 150"]:
        """The face, cut out and resized, with dlib's mean taken off."""
        left, right, top, bottom = CROP
        x = torch.linspace(left, right, SIDE + 1, device=pixels.device)[:-1] + (right - left) / SIDE / 2
        y = torch.linspace(top, bottom, SIDE + 1, device=pixels.device)[:-1] + (bottom - top) / SIDE / 2
        grid = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), -1)
        cut = functional.grid_sample(pixels, grid.expand(len(pixels), -1, -1, -1), align_corners=False)
        return ((cut + 1) * 127.5 - self.get_buffer("mean").view(1, 3, 1, 1)) / 256


@torch.inference_mode()
def face_embeddings(
    teacher: FaceTeacher, pictures: UInt8[np.ndarray, "n h w 3"], batch: int = 32
) -> Float[np.ndarray, "n 2 numbers"]:
    """The teacher's numbers of aligned pictures and of their mirror images."""
    parts = []
    for start in tqdm(range(0, len(pictures), batch), desc="embeddings", unit="batch"):
        pixels = to_pixels(torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch])))
        parts.append(torch.stack([teacher(pixels)[0], teacher(pixels.flip(3))[0]], dim=1).numpy())
    return np.concatenate(parts)


def _added(one: Tensor, other: Tensor) -> Tensor:
    """The sum; the smaller one gets zeros at the end of its channels, rows and columns."""
    shape = [max(a, b) for a, b in zip(one.shape[1:], other.shape[1:], strict=True)]

    def padded(x: Tensor) -> Tensor:
        (c, h, w), (full, high, wide) = x.shape[1:], shape
        return functional.pad(x, (0, wide - w, 0, high - h, 0, full - c))

    return padded(one) + padded(other)
