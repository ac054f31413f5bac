"""The algorithm on one screen: photos -> hypernetwork -> rank relaxation -> fast finetuning -> 100 KB of weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from core.errors import BundleError, WeightsMismatch
from core.hyperdreambooth.adapters import unstack
from core.hyperdreambooth.config import FinetuneConfig
from core.hyperdreambooth.diffusion import Bundle, to_pixels
from core.hyperdreambooth.finetune import PROMPT, finetune, show
from core.hyperdreambooth.hypernetwork import HyperNetwork
from core.hyperdreambooth.lidb import Factors, Person
from core.hyperdreambooth.sampling import Row, generate
from core.hyperdreambooth.weights import LidbWeights, describe, unpack


@dataclass(frozen=True)
class PersonalizeOptions:
    """What a caller may choose; None takes the bundle's default.

    ``start``: weights of the same person, made of other photos, to go on from.
    """

    rank: int | None = None
    steps: int | None = None
    seed: int = 0
    class_noun: str | None = None
    start: LidbWeights | None = None


@dataclass(frozen=True)
class Personalized:
    """Refined weights, the hypernetwork's own (``preview``), and what is known about them.

    ``likeness`` is the mean cosine, by the bundle's own face encoder, between the photos and pictures made from the
    weights; None without a hypernetwork. ``seconds`` are by stage.
    """

    weights: LidbWeights
    preview: LidbWeights | None
    likeness: float | None
    kept_step: int
    seconds: dict[str, float] = field(default_factory=dict)


def personalize(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    options: PersonalizeOptions | None = None,
    *,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_preview: Callable[[LidbWeights], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Personalized:
    """Aligned photos of one person (any square size) to weights. The same photos and options give the same weights.

    Stages reported to ``on_progress`` as (stage, step, of): "hypernetwork", "finetune", "likeness"; a bundle without a
    hypernetwork has the second one only, which then starts from zero and takes ``finetune.steps_from_zero`` steps.
    ``on_preview`` gets what the hypernetwork predicted before finetuning begins; its time is the stage "preview".
    With a ``start`` there is nothing to predict, and ``finetune.steps`` do.

    Raises:
        WeightsMismatch: ``start`` was made for another base model, or outside the basis.
        JobCanceled: ``should_stop`` said so; it is asked before each step.
    """
    options = options or PersonalizeOptions()
    report = on_progress or _silent
    generator = torch.Generator("cpu").manual_seed(options.seed)
    clock = _Clock()
    noun = options.class_noun or bundle.class_noun
    settings = _settings(bundle, options)
    photos = resize(photos, bundle.resolution)

    begun = None if options.start is None else _go_on(bundle, options.start)
    predicted, preview = None, None
    if bundle.has_hypernetwork and begun is None:
        report("hypernetwork", 0, 1)
        predicted = predict_weights(bundle, photos)
        preview = describe(bundle, unstack(predicted)[0], kind="lidb", class_noun=noun, kept_step=0)
        report("hypernetwork", 1, 1)
        clock.lap("hypernetwork")
        if on_preview is not None:
            on_preview(preview)
            clock.lap("preview")

    start = begun or predicted or bundle.basis.zeros(1, generator=generator, batch=(1,))
    tuned = finetune(
        bundle,
        show(bundle, photos[None], settings),
        start,
        settings,
        generator=generator,
        class_noun=noun,
        on_step=lambda step, of: report("finetune", step, of),
        should_stop=should_stop,
    )
    weights = describe(
        bundle, unstack(tuned.person)[0], kind=settings.relaxation, class_noun=noun, kept_step=tuned.kept_step
    )
    clock.lap("finetune")

    likeness = None
    if bundle.has_hypernetwork:
        report("likeness", 0, 1)
        likeness = measure_likeness(bundle, photos, weights, noun, seed=options.seed, should_stop=should_stop)
        report("likeness", 1, 1)
        clock.lap("likeness")
    return Personalized(weights, preview, likeness, tuned.kept_step, clock.seconds)


@torch.no_grad()
def predict_weights(bundle: Bundle, photos: UInt8[Tensor, "n h w 3"]) -> Person:
    """The hypernetwork's factors, with a leading dimension of one person; photos are averaged in the features."""
    network = _network(bundle)
    features = network.encoder(face_pixels(bundle, network, photos))
    return network.decode(features.mean(0, keepdim=True))


@torch.no_grad()
def measure_likeness(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    weights: LidbWeights,
    class_noun: str,
    *,
    seed: int,
    pictures: int = 4,
    should_stop: Callable[[], bool] | None = None,
) -> float:
    """Mean cosine between the photos and a few generated pictures, by the face encoder that ships with the bundle."""
    network = _network(bundle)
    rows = [Row(PROMPT.format(noun=class_noun), weights=weights, seed=seed + index) for index in range(pictures)]
    made = generate(bundle, rows, should_stop=should_stop)
    who = [network.identity(network.encoder(face_pixels(bundle, network, each))) for each in (photos, made)]
    return float((who[0] @ who[1].T).mean())


def face_pixels(bundle: Bundle, network: HyperNetwork, pictures: UInt8[Tensor, "n h w 3"]) -> Tensor:
    """Pictures as the hypernetwork takes them: [-1, 1], at its own resolution, on the bundle's device."""
    return to_pixels(resize(pictures, network.config.resolution)).to(bundle.device)


def resize(pictures: UInt8[Tensor, "n h w 3"], side: int) -> UInt8[Tensor, "n side side 3"]:
    """Square pictures of another size, antialiased."""
    if pictures.shape[1:3] == (side, side):
        return pictures
    pixels = pictures.permute(0, 3, 1, 2).float()
    scaled = nn.functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _network(bundle: Bundle) -> HyperNetwork:
    if bundle.hypernetwork is None:
        raise BundleError(f"bundle {bundle.name!r} has no hypernetwork")
    return bundle.hypernetwork


def _go_on(bundle: Bundle, weights: LidbWeights) -> Person:
    """Somebody's weights as factors with a leading dimension of one person."""
    if weights.metadata.kind != "lidb":
        raise WeightsMismatch("weights outside the basis cannot be gone on from: personalise anew, from all the photos")
    return {name: Factors(f.left[None], f.right[None]) for name, f in unpack(weights, bundle).items()}


def _settings(bundle: Bundle, options: PersonalizeOptions) -> FinetuneConfig:
    default = bundle.config.finetune
    if options.start is not None:
        lowest, steps = options.start.metadata.rank, default.steps
    else:
        lowest = bundle.hypernetwork.config.rank if bundle.hypernetwork is not None else 1
        steps = bundle.finetuning_steps
    return replace(default, rank=max(options.rank or default.rank, lowest), steps=options.steps or steps)


def _silent(_stage: str, _step: int, _of: int) -> None:
    return None


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note the time since the lap before."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
