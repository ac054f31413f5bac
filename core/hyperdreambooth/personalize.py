"""The algorithm on one screen: photos -> hypernetwork -> rank relaxation -> fast finetuning -> 100 KB of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import UInt8
from torch import Tensor

from core.hyperdreambooth.finetune import PROMPT, encode_training_pictures, finetune
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, unpack
from core.hyperdreambooth.likeness import Recogniser, measure_likeness, recognisers_of
from core.hyperdreambooth.model.adapters import as_batch
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.latents import resize
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.prediction import predict_weights
from core.hyperdreambooth.progress import Progress
from core.hyperdreambooth.records import Personalized, PersonalizeOptions, Row


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
    noun = options.class_noun or bundle.class_noun
    config = _finetuning(bundle, options, len(photos))
    photos = resize(photos, bundle.resolution)
    generator = torch.Generator("cpu").manual_seed(options.seed)
    progress = Progress(bundle, noun, on_progress, on_preview)
    start = _start(progress, photos, options, generator)
    tuned = finetune(
        bundle,
        encode_training_pictures(bundle, photos[None], config),
        start,
        config,
        generator=generator,
        class_noun=noun,
        on_step=partial(progress.at_step, previews=options.start is None),
        should_stop=should_stop,
    )
    weights = progress.pack(tuned.factors, tuned.kept_step)
    progress.lap("finetune")
    row = Row(PROMPT.format(noun=noun), weights=weights, seed=options.seed)
    used = recognisers_of(bundle, recognisers)
    report = partial(progress.report, "likeness")
    likeness = measure_likeness(bundle, photos, row, used, on_step=report, should_stop=should_stop)
    if likeness:
        progress.lap("likeness")
    return Personalized(weights, progress.preview, likeness, tuned.kept_step, progress.seconds)


def _start(
    progress: Progress,
    photos: UInt8[Tensor, "n h w 3"],
    options: PersonalizeOptions[LidbWeights],
    generator: torch.Generator,
) -> LayerFactors:
    """What finetuning starts from: the given weights, or the prediction (section 4.2), or zero weights."""
    bundle = progress.bundle
    if options.start is not None:
        return as_batch(unpack(options.start, bundle))
    if bundle.has_hypernetwork:
        progress.on_progress("hypernetwork", 0, 1)
        predicted = predict_weights(bundle, [photos])
        progress.on_progress("hypernetwork", 1, 1)
        progress.lap("hypernetwork")
        progress.show(predicted, 0)
        if not bundle.starts_from_zero:
            return predicted
    return bundle.basis.zeros(1, generator=generator, batch=(1,))


def _finetuning(bundle: Bundle, options: PersonalizeOptions[LidbWeights], photos: int) -> FinetuneConfig:
    """The bundle's configuration with the rank and steps of the request; a start's rank is never lowered."""
    default = bundle.config.finetune
    lowest = 1 if options.start is None else options.start.metadata.rank
    from_zero = options.start is None and bundle.starts_from_zero
    steps = options.steps or default.steps_taken(from_zero=from_zero, photos=photos)
    return replace(default, rank=max(options.rank or default.rank, lowest), steps=steps)
