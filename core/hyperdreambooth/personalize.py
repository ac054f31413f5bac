"""The algorithm on one screen: photos -> hypernetwork -> rank relaxation -> fast finetuning -> 100 KB of weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from core.hyperdreambooth.finetune import PROMPT, encode_training_pictures, finetune
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe, unpack
from core.hyperdreambooth.likeness import Recogniser, measure_likeness, recognisers_of
from core.hyperdreambooth.model.adapters import as_batch, unstack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.latents import resize
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.prediction import predict_weights
from core.hyperdreambooth.records import Personalized, PersonalizeOptions, Row

SECOND_PREVIEW = 1 / 3
"""The share of the finetuning steps after which a picture resembles the person."""


def personalize(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    options: PersonalizeOptions[LidbWeights] | None = None,
    *,
    recognisers: Sequence[Recogniser] = (),
    on_progress: Callable[[str, int, int], None] = lambda _stage, _step, _of: None,
    on_preview: Callable[[LidbWeights], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Personalized[LidbWeights]:
    """Aligned photos of one person (squares of any size) to weights. The same photos and options give the same weights.

    ``on_progress`` gets (stage, step, of); the stages are "hypernetwork", where the bundle has one, "finetune" and
    "likeness". Without a hypernetwork, finetuning starts from zero weights and takes ``finetune.steps_from_zero`` steps
    (more for more photos). ``on_preview`` gets the hypernetwork's prediction, then the weights after a third of the
    steps; its time counts as the stage "preview". With ``options.start`` there is no preview, and finetuning takes
    ``finetune.steps``. ``recognisers`` measure likeness beside the bundle's own.

    Raises:
        WeightsMismatch: ``options.start`` was made for another base model.
        JobCanceled: ``should_stop`` returned True; it is called before each step.
    """
    options = options or PersonalizeOptions()
    clock, previews = _Clock(), list[LidbWeights]()
    noun = options.class_noun or bundle.class_noun
    generator = torch.Generator("cpu").manual_seed(options.seed)
    config = _finetuning(bundle, options, len(photos))
    photos = resize(photos, bundle.resolution)

    def pack(factors: LayerFactors, step: int) -> LidbWeights:
        return describe(bundle, unstack(factors)[0], class_noun=noun, kept_step=step)

    def preview(factors: LayerFactors, step: int) -> None:
        previews.append(pack(factors, step))
        if on_preview is not None:
            on_preview(previews[-1])
            clock.lap("preview")

    def at_step(step: int, of: int, factors: LayerFactors) -> None:
        on_progress("finetune", step, of)
        if options.start is None and step == int(SECOND_PREVIEW * of):
            clock.lap("finetune")
            preview(factors, step)

    start: LayerFactors | None = None if options.start is None else as_batch(unpack(options.start, bundle))
    if bundle.has_hypernetwork and start is None:  # section 4.2
        on_progress("hypernetwork", 0, 1)
        predicted = predict_weights(bundle, [photos])
        on_progress("hypernetwork", 1, 1)
        clock.lap("hypernetwork")
        preview(predicted, 0)
        start = None if bundle.starts_from_zero else predicted
    if start is None:
        start = bundle.basis.zeros(1, generator=generator, batch=(1,))
    pictures = encode_training_pictures(bundle, photos[None], config)
    tuned = finetune(  # section 4.3
        bundle, pictures, start, config, generator=generator, class_noun=noun, on_step=at_step, should_stop=should_stop
    )
    weights = pack(tuned.factors, tuned.kept_step)
    clock.lap("finetune")
    likeness = measure_likeness(
        bundle,
        photos,
        Row(PROMPT.format(noun=noun), weights=weights, seed=options.seed),
        recognisers_of(bundle, recognisers),
        on_step=lambda step, of: on_progress("likeness", step, of),
        should_stop=should_stop,
    )
    if likeness:
        clock.lap("likeness")
    return Personalized(weights, previews[-1] if previews else None, likeness, tuned.kept_step, clock.seconds)


def _finetuning(bundle: Bundle, options: PersonalizeOptions[LidbWeights], photos: int) -> FinetuneConfig:
    """The bundle's configuration with the rank and steps of the request; a start's rank is never lowered."""
    default = bundle.config.finetune
    lowest = 1 if options.start is None else options.start.metadata.rank
    from_zero = options.start is None and bundle.starts_from_zero
    steps = options.steps or default.steps_taken(from_zero=from_zero, photos=photos)
    return replace(default, rank=max(options.rank or default.rank, lowest), steps=steps)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now
