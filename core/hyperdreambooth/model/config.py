"""Every number of the method, with the paper's section (arXiv 2307.06949) or the measurement it comes from.

A bundle folder may hold a ``bundle.json`` with these fields; a plain diffusers folder or a hub id gets the defaults.
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from core.errors import BundleError

_STRICT = ConfigDict(extra="forbid")

Preset = Literal["attention", "attention+geglu", "convolutions", "up-convolutions"]
Relaxation = Literal["lidb", "lora"]
Optimizer = Literal["adamw", "muon"]
Unconditional = Literal["person", "nobody"]


@dataclass(frozen=True, config=_STRICT)
class LidbConfig:
    """Lightweight DreamBooth (section 4.1): ``a = 100``, ``b = 50``; the paper does not say how the basis is seeded."""

    preset: Preset = "attention+geglu"
    a: int = 100
    b: int = 50
    seed: int = 0
    basis: Literal["orthonormal", "gaussian"] = "orthonormal"


@dataclass(frozen=True, config=_STRICT)
class HypernetworkConfig:
    """The hypernetwork (section 4.2): two decoder layers as in the paper; ``iterations`` (s) is not given there.

    ``rank`` is 1 in the paper; a small base model needs more (METHOD: rank 1 reaches half of rank 4's likeness).
    """

    resolution: int = 64
    stem: tuple[int, ...] = (48, 96, 192)
    width: int = 192
    heads: int = 6
    encoder_layers: int = 4
    decoder_layers: int = 2
    head_width: int = 96
    rank: int = 1
    iterations: int = 2
    identities: int = 0


@dataclass(frozen=True, config=_STRICT)
class LinearHypernetworkConfig:
    """The hypernetwork that two CPU cores can train (decision 20); nothing of it is the paper's.

    For every target, ``eigenfaces`` of the whole picture and ``face_eigenfaces`` of the face are mixed down to
    ``width`` coordinates, of which its weights are a linear function. 192 eigenfaces of the face keep a cosine of 0.37
    with the photo, 384 of them 0.59.
    """

    resolution: int = 64
    eigenfaces: int = 64
    face_eigenfaces: int = 384
    width: int = 48
    rank: int = 4


@dataclass(frozen=True, config=_STRICT)
class FinetuneConfig:
    """Rank-relaxed fast finetuning (section 4.3): 40 iterations; learning rate, rank and batch are not given.

    ``steps_from_zero`` are taken where no prediction is started from (the paper's DreamBooth takes 1,200); both are
    for one photo, more photos take more.
    ``from_prediction`` False: the hypernetwork gives the preview, and finetuning starts from zero (decision 22).
    ``optimizer`` "muon" needs fewer steps, at a lower rate (decision 23); the paper does not name its own.
    ``relaxation`` "lidb" stays inside the basis and keeps the file at about 100 KB; "lora" leaves it.
    ``least_noise`` and ``most_noise`` are the shares of the noise schedule, from its clean end, between which timesteps
    are drawn: who it is gets decided there (decision 28).
    ``styled_rows`` of a person's ``rows`` show the photo through a filter of ``styles``, with the prompt of that style,
    so that the weights hold the person and not the look of one photo (decision 18; the paper has none).
    ``styled_noisiest``: of a step's rows they are those with the most noise, where the look of a picture is decided;
    the photo itself is shown where it is decided who it is (decision 27).
    A likeness below ``poor_likeness``, by the bundle's own recogniser, gets one second try at ``second_rank`` (decision
    19); None: its word is not asked for. An operator's recogniser has a threshold of its own.
    """

    rank: int = 4
    steps: int = 40
    steps_from_zero: int = 400
    learning_rate: float = 1e-2
    rows: int = 4
    optimizer: Optimizer = "adamw"
    relaxation: Relaxation = "lidb"
    from_prediction: bool = True
    least_noise: float = 0.0
    most_noise: float = 1.0
    styled_rows: int = 0
    styled_noisiest: bool = False
    styles: tuple[str, ...] = ()
    poor_likeness: float | None = None
    second_rank: int = 8

    def starts_from_zero(self, *, has_hypernetwork: bool) -> bool:
        """Whether there is no prediction that finetuning of somebody new starts from."""
        return not (has_hypernetwork and self.from_prediction)

    def steps_taken(self, *, from_zero: bool, photos: int = 1) -> int:
        """The steps of a personalisation that names none; half as many again for each further photo, up to twice."""
        steps = self.steps_from_zero if from_zero else self.steps
        return min(steps * (photos + 1) // 2, 2 * steps)


@dataclass(frozen=True, config=_STRICT)
class SamplingConfig:
    """Text to image: steps and guidance scale when a request names none; ``batch`` is the most rows in one pass.

    ``unconditional`` says whose weights the pass without the prompt carries. "person" is what diffusers does with a
    LoRA; with "nobody" guidance leads away from the base model, towards the person as well as towards the prompt.
    """

    steps: int = 30
    guidance_scale: float = 7.5
    batch: int = 16
    unconditional: Unconditional = "person"


@dataclass(frozen=True, config=_STRICT)
class BundleConfig:
    """What a bundle adds to a diffusers pipeline. ``identifier`` is the rare token that stands for ``[V]``."""

    name: str
    resolution: int = 512
    identifier: str = "sks"
    class_noun: str = "face"
    lidb: LidbConfig = field(default_factory=LidbConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def changed(self, key: str, value: Any) -> BundleConfig:
        """A copy with one number changed, by its dotted name: ``finetune.rank``. Raises BundleError for no such one."""
        fields: dict[str, Any] = asdict(self)
        *path, last = key.split(".")
        part: Any = fields
        for name in path:
            part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            raise BundleError(f"a bundle has no setting {key!r}; it has finetune.rank, sampling.guidance_scale, ...")
        part[last] = value
        return BundleConfig.from_json(json.dumps(fields))

    def to_json(self) -> str:
        """The text of a ``bundle.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BundleConfig:
        """Read a ``bundle.json``. Raises BundleError for anything that is not a known field of the right kind."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"])
            raise BundleError(f"bundle.json cannot be read: {where + ': ' if where else ''}{found['msg']}") from error
