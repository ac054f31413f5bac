"""Eigenfaces (Turk and Pentland, 1991): aligned faces as coordinates along the principal directions of many of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.hyperdreambooth.faces.recogniser import FACE

PASSES = 4
"""Passes of the randomised decomposition: its directions then agree with the exact ones to a few per cent."""


class Eigenfaces(nn.Module):
    """Coordinates of the whole picture, then of the face alone (the square that the recogniser looks at).

    Nothing is trained by gradients: ``fit`` measures mean and directions. Directions are scaled so that the spread of a
    coordinate is the square root of what it is in the pictures (half whitened), and their mean square is one: what
    tells faces apart is in the small ones, what is noise is in the smallest.
    """

    def __init__(self, resolution: int, whole: int, face: int) -> None:
        super().__init__()
        left, top, side = (round(part * resolution) for part in FACE)
        self._face = slice(top, top + side), slice(left, left + side)
        for name, pixels, count in (("whole", 3 * resolution**2, whole), ("face", 3 * side**2, face)):
            self.register_buffer(f"{name}_mean", torch.zeros(pixels))
            self.register_buffer(f"{name}_directions", torch.zeros(pixels, count))

    def forward(self, faces: Float[Tensor, "people 3 h w"]) -> Float[Tensor, "people 1 coordinates"]:
        """Faces in [-1, 1] to their coordinates, as one token."""
        parts = [
            (pixels.float() - self.get_buffer(f"{name}_mean")) @ self.get_buffer(f"{name}_directions")
            for name, pixels in self._views(faces).items()
        ]
        return torch.cat(parts, dim=1)[:, None]

    @torch.no_grad()
    def fit(self, faces: Float[Tensor, "n 3 h w"], *, seed: int) -> None:
        """Measure mean and directions of faces in [-1, 1]; needs about three times their memory."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for name, pixels in self._views(faces).items():
                mean, directions = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_directions")
                mean.copy_(pixels.mean(0))
                count = directions.shape[1]
                _, spread, found = torch.pca_lowrank(
                    pixels - mean, min(2 * count, *pixels.shape), center=False, niter=PASSES
                )
                scale = spread[:count].rsqrt()
                scale = scale * (count * len(pixels) / spread[:count].sum()).sqrt()
                directions.zero_()[:, : len(scale)] = found[:, :count] * scale

    def _views(self, faces: Float[Tensor, "n 3 h w"]) -> dict[str, Float[Tensor, "n pixels"]]:
        rows, columns = self._face
        return {"whole": faces.flatten(1), "face": faces[:, :, rows, columns].flatten(1)}
