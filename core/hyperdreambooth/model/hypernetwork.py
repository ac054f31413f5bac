"""The hypernetwork (section 4.2): from one face to the LiDB factors of every target.

The paper's is ``TransformerHyperNetwork``. A convolutional stem and a ViT turn the face into features ``f``, once. A
transformer decoder has one token for each target; starting from zero change it cross-attends to ``f`` and predicts a
residual, ``s`` times:

    w_k = w_{k-1} + T(f, w_{k-1}),   k = 1..s

A zero change is ``A = 0`` with a learned ``B``: were both zero, neither would get a gradient.

``LinearHyperNetwork`` is one that two CPU cores can train: ``f`` are the face's coordinates among eigenfaces, or those
of a recogniser's numbers, and every ``A`` is a linear function of them. It has no iterations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.hyperdreambooth.model.config import HyperNetworkConfig, LinearHyperNetworkConfig
from core.hyperdreambooth.model.eigenfaces import Eigenfaces
from core.hyperdreambooth.model.lidb import Factors
from core.hyperdreambooth.networks.residual import residual_branch

HEAD_STD = 1e-3
"""Initial standard deviation of the output heads (the paper's first author's advice to an open implementation)."""

Shapes = dict[str, tuple[int, int]]
"""Target name -> the inner widths ``(a, b)`` of its basis, in file order."""


class HyperNetwork(nn.Module, ABC):
    """Faces to factors: ``encoder`` turns a face into features, once; ``decode`` turns those into factors."""

    config: HyperNetworkConfig | LinearHyperNetworkConfig
    encoder: nn.Module

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes

    @property
    def identities(self) -> nn.Parameter | None:
        """For the identity loss: one vector for each person of the training pictures; None without such a loss."""
        return None

    def forward(self, faces: Float[Tensor, "people ..."], iterations: int | None = None) -> dict[str, Factors]:
        """Faces to one pair of factors a person and target.

        A face is a picture in [-1, 1] of the configured resolution, or the numbers of a recogniser.
        """
        return self.decode(self.encoder(faces), iterations)

    @abstractmethod
    def decode(
        self, features: Float[Tensor, "people tokens width"], iterations: int | None = None
    ) -> dict[str, Factors]:
        """The prediction from the encoder's features."""

    @abstractmethod
    def identity(self, features: Float[Tensor, "people tokens width"]) -> Float[Tensor, "people embedding"]:
        """An embedding of the person's identity: a unit vector."""

    def describe(self) -> dict[str, Any]:
        """What ``from_description`` needs to build the same network, as plain JSON values."""
        return {"config": asdict(self.config), "shapes": {name: list(shape) for name, shape in self.shapes.items()}}


def new_hypernetwork(
    config: HyperNetworkConfig | LinearHyperNetworkConfig, shapes: Shapes, *, seed: int = 0, identities: int = 0
) -> HyperNetwork:
    """A network of the class that ``config`` belongs to, with initial weights from ``seed``.

    ``identities`` is how many people the transformer's encoder is to tell apart while it learns.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, LinearHyperNetworkConfig):
            return LinearHyperNetwork(config, shapes)
        return TransformerHyperNetwork(replace(config, identities=identities or config.identities), shapes)


def from_description(description: dict[str, Any]) -> HyperNetwork:
    """A network with initial weights, from the result of ``describe``."""
    fields: dict[str, Any] = description["config"]
    shapes = {name: (int(a), int(b)) for name, (a, b) in description["shapes"].items()}
    if "stem" in fields:
        return new_hypernetwork(HyperNetworkConfig(**{**fields, "stem": tuple(fields["stem"])}), shapes)
    return new_hypernetwork(LinearHyperNetworkConfig(**fields), shapes)


class TransformerHyperNetwork(HyperNetwork):
    """The paper's: ``s`` residuals of a transformer decoder."""

    config: HyperNetworkConfig
    encoder: FaceEncoder | EmbeddingEncoder

    def __init__(self, config: HyperNetworkConfig, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.config = config
        width, rank = config.width, config.rank
        self.encoder = EmbeddingEncoder(config) if config.embedding else FaceEncoder(config)
        self.position = nn.Parameter(torch.randn(len(shapes), width) * 0.02)
        self.embed = nn.Sequential(nn.LayerNorm(config.head_width), nn.Linear(config.head_width, width))
        layer = nn.TransformerDecoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.decoder_layers, norm=nn.LayerNorm(width))
        self.to_head = nn.Linear(width, config.head_width)
        self.widest = rank * max(a for a, _ in shapes.values()), rank * max(b for _, b in shapes.values())
        self.head = nn.Parameter(torch.randn(len(shapes), config.head_width, sum(self.widest)) * HEAD_STD)
        start = torch.randn(len(shapes), self.widest[1]) * (rank / self.widest[1]) ** 0.5
        self.start = nn.Parameter(start)

    @property
    def identities(self) -> nn.Parameter | None:
        """See HyperNetwork: those of the encoder."""
        return self.encoder.identities

    def decode(
        self, features: Float[Tensor, "people tokens width"], iterations: int | None = None
    ) -> dict[str, Factors]:
        """The iterative prediction from the encoder's features."""
        flat = features.new_zeros(len(features), len(self.shapes), sum(self.widest))
        for _ in range(iterations or self.config.iterations):
            current = torch.einsum("ptv,thv->pth", flat, self.head)
            tokens = self.decoder(self.position + self.embed(current), features)
            flat = flat + torch.einsum("pth,thv->ptv", self.to_head(tokens), self.head)
        return self._unpack(flat)

    def identity(self, features: Float[Tensor, "people tokens width"]) -> Float[Tensor, "people embedding"]:
        """An embedding of the person's identity: a unit vector."""
        if isinstance(self.encoder, FaceEncoder):
            features = self.encoder.to_identity(features.mean(1))
        return nn.functional.normalize(features.flatten(1), dim=-1)

    def _unpack(self, flat: Float[Tensor, "people targets values"]) -> dict[str, Factors]:
        rank, (wide_a, wide_b) = self.config.rank, self.widest
        left = flat[..., :wide_a].unflatten(-1, (wide_a // rank, rank))
        right = (flat[..., wide_a:] + self.start).unflatten(-1, (rank, wide_b // rank))
        return {
            name: Factors(left[:, index, :a], right[:, index, :, :b])
            for index, (name, (a, b)) in enumerate(self.shapes.items())
        }


class LinearHyperNetwork(HyperNetwork):
    """A linear function of the coordinates ``c`` of a face:  ``A = [c mix, 1] head``, for each target.

    ``B`` is learned and the same for all faces: it picks what matters of a layer's input. Each target mixes ``width``
    coordinates of its own out of all, so that all targets between them see the whole face.
    """

    config: LinearHyperNetworkConfig
    encoder: Eigenfaces | EmbeddingCoordinates

    def __init__(self, config: LinearHyperNetworkConfig, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.config = config
        eigenfaces = (config.eigenfaces, config.face_eigenfaces)
        coordinates = config.embedding or sum(eigenfaces)
        self.encoder = (
            EmbeddingCoordinates(coordinates) if config.embedding else Eigenfaces(config.resolution, *eigenfaces)
        )
        self.mix = nn.Parameter(torch.randn(coordinates, len(shapes) * config.width) / coordinates**0.5)
        self.head = nn.ParameterList([torch.zeros(config.width + 1, a * config.rank) for a, _ in shapes.values()])
        self.right = nn.ParameterList([torch.randn(config.rank, b) / b**0.5 for _, b in shapes.values()])

    def decode(
        self,
        features: Float[Tensor, "people 1 coordinates"],
        iterations: int | None = None,  # noqa: ARG002 - there are none
    ) -> dict[str, Factors]:
        """The prediction; ``iterations`` changes nothing."""
        mixed = (features.mean(1) @ self.mix).unflatten(1, (len(self.shapes), self.config.width))
        mixed = nn.functional.pad(mixed, (0, 1), value=1.0)
        parts = [mixed[:, index] @ head for index, head in enumerate(self.head)]
        return {
            name: Factors(part.unflatten(1, (a, self.config.rank)), right.expand(len(part), -1, -1))
            for (name, (a, _)), part, right in zip(self.shapes.items(), parts, self.right, strict=True)
        }

    def identity(self, features: Float[Tensor, "people 1 coordinates"]) -> Float[Tensor, "people embedding"]:
        """The coordinates themselves, as a unit vector."""
        return nn.functional.normalize(features.mean(1), dim=-1)

    @torch.no_grad()
    def widened(self, rank: int, *, seed: int) -> LinearHyperNetwork:
        """The same prediction with space for ``rank`` components, as in ``lidb.relax``: new columns of ``A`` are zero,
        new rows of ``B`` random.
        """
        wide = new_hypernetwork(replace(self.config, rank=rank), self.shapes, seed=seed)
        assert isinstance(wide, LinearHyperNetwork)
        old = self.config.rank
        wide.encoder.load_state_dict(self.encoder.state_dict())
        wide.mix.copy_(self.mix)
        for (a, _), mine, theirs in zip(self.shapes.values(), self.head, wide.head, strict=True):
            theirs.unflatten(1, (a, rank))[..., :old] = mine.unflatten(1, (a, old))
        for mine, theirs in zip(self.right, wide.right, strict=True):
            theirs[:old] = mine
        return wide


class FaceEncoder(nn.Module):
    """A convolutional stem (each stage halves the picture) and a small ViT on what is left of it."""

    def __init__(self, config: HyperNetworkConfig) -> None:
        super().__init__()
        channels = (3, *config.stem)
        stages = [_stage(before, after) for before, after in pairwise(channels)]
        self.stem = nn.Sequential(*stages, nn.Conv2d(channels[-1], config.width, 1))
        side = config.resolution // 2 ** len(config.stem)
        self.position = nn.Parameter(torch.randn(side * side, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, config.encoder_layers, norm=nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        self.to_identity = nn.Linear(config.width, 128)
        self.identities = nn.Parameter(torch.randn(config.identities, 128)) if config.identities else None

    def forward(self, faces: Float[Tensor, "people 3 h w"]) -> Float[Tensor, "people tokens width"]:
        """Faces in [-1, 1] to one token for each ``2^stages`` pixels square."""
        tokens: Tensor = self.layers(self.stem(faces).flatten(2).mT + self.position)
        return tokens


class EmbeddingEncoder(nn.Module):
    """A face recogniser's numbers as tokens, by one matrix: who is seen, and nothing of the picture."""

    identities = None

    def __init__(self, config: HyperNetworkConfig) -> None:
        super().__init__()
        self.width = config.width
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(config.embedding))
        self.register_buffer("spread", torch.ones(config.embedding))
        self.to_tokens = nn.Linear(config.embedding, config.tokens * config.width)

    def measure(self, embeddings: Float[Tensor, "pictures numbers"]) -> None:
        """Take the numbers' mean and spread over many people from their embeddings."""
        self.mean.copy_(embeddings.mean(0))
        self.spread.copy_(embeddings.std(0))

    def forward(self, embeddings: Float[Tensor, "people numbers"]) -> Float[Tensor, "people tokens width"]:
        """Embeddings, one a person, to tokens; their mean over photos is that of the embeddings."""
        flat = self.to_tokens((embeddings - self.mean) / self.spread)
        tokens: Tensor = flat.unflatten(1, (-1, self.width))
        return tokens


class EmbeddingCoordinates(nn.Module):
    """A face recogniser's numbers along the principal directions of many people's, half whitened as eigenfaces are.

    dlib's 128 lie in fewer dimensions: a direction in which people hardly differ is not made larger.
    """

    least = 0.01
    """Is added to the spread of a direction: a fifth of a number's."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.directions: Tensor
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("directions", torch.eye(numbers))

    @torch.no_grad()
    def measure(self, embeddings: Float[Tensor, "pictures numbers"]) -> None:
        """Take mean and directions from the embeddings of many people."""
        self.mean.copy_(embeddings.mean(0))
        centred = embeddings - self.mean
        variance, found = torch.linalg.eigh(centred.mT @ centred / len(centred))
        spread = variance.flip(0).clamp(min=0).sqrt() + self.least
        self.directions.copy_(found.flip(1) / (spread * spread.mean()).sqrt())

    def forward(self, embeddings: Float[Tensor, "people numbers"]) -> Float[Tensor, "people 1 numbers"]:
        """Embeddings, one a person, to their coordinates, as one token; their mean square is about one."""
        coordinates: Tensor = (embeddings - self.mean) @ self.directions
        return coordinates[:, None]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = residual_branch(channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        out: Tensor = x + self.body(x)
        return out


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), _ResidualBlock(after))
