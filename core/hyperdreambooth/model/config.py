"""Every number of the method, with the paper's section (arXiv 2307.06949) or the measurement it comes from.

A bundle folder may hold a ``bundle.json`` with these fields; a plain diffusers folder or a hub id gets the defaults.
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from core.errors import BundleError

_STRICT = ConfigDict(extra="forbid")

Preset = Literal["attention", "attention+geglu", "convolutions", "up-convolutions"]
Optimizer = Literal["adamw", "muon"]
Unconditional = Literal["subject", "base"]


def _without(values: Any, retired: dict[str, Any]) -> Any:
    """Fields as JSON without those that files of earlier releases have, where their value is what is done today."""
    if not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if key not in retired or value != retired[key]}


@dataclass(frozen=True, config=_STRICT)
class LidbConfig:
    """Lightweight DreamBooth (section 4.1): ``a = 100``, ``b = 50``; the paper does not say how the basis is seeded."""

    preset: Preset = "attention+geglu"
    a: int = 100
    b: int = 50
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        return _without(values, {"basis": "orthonormal"})


@dataclass(frozen=True, config=_STRICT)
class HyperNetworkConfig:
    """The hypernetwork (section 4.2): two decoder layers as in the paper; ``iterations`` (s) is not given there.

    ``rank`` is 1 in the paper; a small base model needs more: there rank 1 reached half of rank 4's likeness.
    ``identities`` is how many people the encoder learns to tell apart while it is trained.
    ``embedding``: the network sees no picture but so many numbers of a face recogniser, as ``tokens`` tokens; 0: it has
    an encoder of its own.
    """

    embedding: int = 0
    tokens: int = 4
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
class LinearHyperNetworkConfig:
    """A hypernetwork that two CPU cores can train; nothing of it is the paper's.

    For every target, ``eigenfaces`` of the whole picture and ``face_eigenfaces`` of the face are mixed down to
    ``width`` coordinates, of which its weights are a linear function. 192 eigenfaces of the face keep a cosine of 0.37
    with the photo, 384 of them 0.59. ``embedding``: it sees no picture but so many numbers of a face recogniser.
    """

    resolution: int = 64
    eigenfaces: int = 64
    face_eigenfaces: int = 384
    width: int = 48
    rank: int = 4
    embedding: int = 0


@dataclass(frozen=True, config=_STRICT)
class FinetuneConfig:
    """Rank-relaxed fast finetuning (section 4.3): 40 iterations; learning rate, rank and batch are not given there.

    ``steps_from_zero``: the steps without a prediction to start from (the paper's DreamBooth takes 1,200). Both counts
    are for one photo; more photos take more.
    ``rows``: rows of a batch for each person.
    ``optimizer`` "muon" needs fewer steps than "adamw", at a lower rate.
    ``from_prediction`` False: the hypernetwork gives the preview only, and finetuning starts from zero weights. That is
    better where the prediction is weak.
    ``least_noise``, ``most_noise``: shares of the noise schedule, from its clean end, between which timesteps are
    drawn. The identity of a face is decided between them.
    ``styled_rows`` of the rows show the photo through a filter of ``styles``, with the prompt of that style, so that
    the weights hold the person rather than the appearance of one photo.
    ``styled_noisiest``: those rows get the noisiest timesteps, where the appearance of a picture is decided; the photo
    itself gets the others.
    ``worded``: the prompt of a photo says what is seen in it and is not who it is of, read off by ``photo_words``.
    ``mirrored``: every second row shows the mirrored photo. ``centre`` weighs the loss of the face: 1 + ``centre`` in
    the middle of the framing, 1 at the border; 0 counts all places alike.
    ``fixed_ranks``: so many ranks stay as the prediction has them, and the others are learned beside them; what they
    have learned counts ``strength``. The prediction knows the person, and the photo adds what is seen in it.
    """

    rank: int = 4
    steps: int = 40
    steps_from_zero: int = 400
    learning_rate: float = 1e-2
    rows: int = 4
    optimizer: Optimizer = "adamw"
    from_prediction: bool = True
    least_noise: float = 0.0
    most_noise: float = 1.0
    styled_rows: int = 0
    styled_noisiest: bool = False
    worded: bool = False
    mirrored: bool = False
    centre: float = 0.0
    fixed_ranks: int = Field(default=0, ge=0)
    strength: float = Field(default=1.0, gt=0, le=1)
    styles: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_free_ranks(self) -> FinetuneConfig:
        if self.fixed_ranks >= self.rank:
            raise ValueError(f"finetune.fixed_ranks ({self.fixed_ranks}) leaves none of finetune.rank ({self.rank})")
        return self

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        return _without(values, {"relaxation": "lidb", "poor_likeness": None, "second_rank": 8})

    def starts_from_zero(self, *, has_hypernetwork: bool) -> bool:
        """Whether finetuning of a new subject starts from zero weights rather than from a prediction."""
        return not (has_hypernetwork and self.from_prediction)

    def steps_taken(self, *, from_zero: bool, photos: int = 1) -> int:
        """Finetuning steps when a request names none; each further photo adds half as many, up to twice as many."""
        steps = self.steps_from_zero if from_zero else self.steps
        return min(steps * (photos + 1) // 2, 2 * steps)


@dataclass(frozen=True, config=_STRICT)
class SamplingConfig:
    """Text to image: steps and guidance scale when a request names none; ``batch`` is the most rows in one pass.

    ``unconditional`` says with which weights the pass without the prompt is made: the "subject"'s, as diffusers does
    with a LoRA; or the "base" model's, so that guidance leads towards the subject as well as towards the prompt.
    ``subject_below``: the share of the noise schedule, from its clean end, in which a subject's weights count. Above it
    the base model alone decides pose, light and background.
    ``guidance_every``: the pass without the prompt is made at every so many steps; those between guide by its last
    difference to the pass with it. 2 saves a quarter of the work.
    ``guidance_limit``: the most that this difference may be (root mean square over a row's latents), as the threshold
    of adaptive projected guidance (arXiv 2410.02416). A style changes every place of a picture, a hat a few: with a
    limit a scale that draws the hat leaves the person in the style. 0: none.
    """

    steps: int = 30
    guidance_scale: float = 7.5
    batch: int = 16
    unconditional: Unconditional = "subject"
    subject_below: float = 1.0
    guidance_every: int = Field(default=1, ge=1)
    guidance_limit: float = Field(default=0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """Files of earlier releases have other words for it."""
        words = {"person": "subject", "nobody": "base"}
        if isinstance(values, dict) and values.get("unconditional") in words:
            return {**values, "unconditional": words[values["unconditional"]]}
        return values


SAMPLES = "samples"
"""The folder of a bundle that holds a picture for each of its styles and attributes."""


def sample_name(word: str) -> str:
    """The name, without its ending, of the sample of a style or an attribute: "pencil-sketch"."""
    return word.replace(" ", "-")


@dataclass(frozen=True, config=_STRICT)
class BundleConfig:
    """What a bundle adds to a diffusers pipeline. ``identifier`` is the rare token that stands for ``[V]``.

    ``attributes`` are words that change a picture when they are added to a prompt, as the evaluation has measured.
    """

    name: str
    resolution: int = 512
    identifier: str = "sks"
    class_noun: str = "face"
    attributes: tuple[str, ...] = ()
    lidb: LidbConfig = field(default_factory=LidbConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def changed(self, key: str, value: Any) -> BundleConfig:
        """A copy with one setting (``finetune.rank``) changed. Raises BundleError for an unknown name."""
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
