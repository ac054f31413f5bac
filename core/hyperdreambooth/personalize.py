"""The algorithm on one screen: photos -> hypernetwork -> rank relaxation -> fast finetuning -> 100 KB of weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from core.errors import WeightsMismatch
from core.hyperdreambooth.finetune import PROMPT, finetune, show
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe, unpack
from core.hyperdreambooth.likeness import Judge, Likeness, judges_of, measure_likeness
from core.hyperdreambooth.model.adapters import unstack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.lidb import Factors, Person
from core.hyperdreambooth.prediction import predict_weights, resize
from core.hyperdreambooth.sampling import Row

SECOND_SEED = 1_000_003
"""Added to the seed for a second try: another start and other noise."""

LOOK = 1 / 3
"""The share of the steps after which a picture resembles the person."""


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
    """Refined weights, those of the last look before they were done (``preview``), and what is known about them.

    ``likeness``: how alike generated pictures are, None where nobody judges. ``tries`` is 2 when the first likeness was
    poor; the better try was kept. ``seconds`` are by stage.
    """

    weights: LidbWeights
    preview: LidbWeights | None
    likeness: Likeness | None
    kept_step: int
    tries: int = 1
    seconds: dict[str, float] = field(default_factory=dict)


def personalize(
    bundle: Bundle,
    photos: UInt8[Tensor, "n h w 3"],
    options: PersonalizeOptions | None = None,
    *,
    judges: Sequence[Judge] = (),
    on_progress: Callable[[str, int, int], None] | None = None,
    on_preview: Callable[[LidbWeights], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Personalized:
    """Aligned photos of one person (any square size) to weights. The same photos and options give the same weights.

    Stages reported to ``on_progress`` as (stage, step, of): "hypernetwork", "finetune", "likeness", and for a second
    try "second try" and "likeness" again; a bundle without a hypernetwork has no first one: finetuning then starts from
    zero and takes ``finetune.steps_from_zero`` steps (more for more photos). ``on_preview`` gets what the hypernetwork
    predicted, before finetuning begins, and then what a third of the steps gave; its time is the stage "preview".
    With a ``start`` there is no preview, and ``finetune.steps`` do. ``judges`` measure likeness beside the bundle's own
    recogniser; where the first that has a threshold says less, a second try follows, and the one that is more alike by
    that judge is kept (a caller who names a rank gets that rank, and one try).

    Raises:
        WeightsMismatch: ``start`` was made for another base model, or outside the basis.
        JobCanceled: ``should_stop`` said so; it is asked before each step.
    """
    options = options or PersonalizeOptions()
    report = on_progress or _silent
    clock = _Clock()
    noun = options.class_noun or bundle.class_noun
    settings = _settings(bundle, options, len(photos))
    photos = resize(photos, bundle.resolution)

    preview: LidbWeights | None = None

    def look(weights: LidbWeights) -> None:
        nonlocal preview
        preview = weights
        if on_preview is not None:
            on_preview(weights)
            clock.lap("preview")

    start = None if options.start is None else _go_on(bundle, options.start)
    if bundle.has_hypernetwork and start is None:
        report("hypernetwork", 0, 1)
        start = predict_weights(bundle, [photos])
        predicted = describe(bundle, unstack(start)[0], kind="lidb", class_noun=noun, kept_step=0)
        report("hypernetwork", 1, 1)
        clock.lap("hypernetwork")
        look(predicted)
        start = None if bundle.starts_from_zero else start

    asked = judges_of(bundle, judges)
    trial = _Trial(bundle, photos, start, noun, asked, report, should_stop, clock)
    made, tries = trial.run(settings, seed=options.seed, on_look=look if options.start is None else None), 1
    poor = None if made.likeness is None or options.rank is not None else made.likeness.poor(asked)
    if poor is not None:
        larger = replace(settings, rank=max(settings.rank, settings.second_rank))
        again = trial.run(larger, seed=options.seed + SECOND_SEED, stage="second try")
        made, tries = max(made, again, key=lambda each: each.likeness.by[poor.name] if each.likeness else 0.0), 2
    return Personalized(made.weights, preview, made.likeness, made.kept_step, tries, clock.seconds)


@dataclass(frozen=True)
class _Made:
    """What one try gave."""

    weights: LidbWeights
    likeness: Likeness | None
    kept_step: int


@dataclass(frozen=True)
class _Trial:
    """What all tries at one person share; ``start`` None is from zero."""

    bundle: Bundle
    photos: UInt8[Tensor, "n h w 3"]
    start: Person | None
    noun: str
    judges: Sequence[Judge]
    report: Callable[[str, int, int], None]
    should_stop: Callable[[], bool] | None
    clock: _Clock

    def run(
        self,
        settings: FinetuneConfig,
        *,
        seed: int,
        stage: str = "finetune",
        on_look: Callable[[LidbWeights], None] | None = None,
    ) -> _Made:
        """Finetune, then have the result judged."""
        bundle, generator = self.bundle, torch.Generator("cpu").manual_seed(seed)

        def described(person: Person, step: int) -> LidbWeights:
            return describe(bundle, unstack(person)[0], kind=settings.relaxation, class_noun=self.noun, kept_step=step)

        def at_step(step: int, of: int, person: Person) -> None:
            self.report(stage, step, of)
            if on_look is not None and step == int(LOOK * of):
                self.clock.lap(stage)
                on_look(described(person, step))

        tuned = finetune(
            bundle,
            show(bundle, self.photos[None], settings),
            self.start or bundle.basis.zeros(1, generator=generator, batch=(1,)),
            settings,
            generator=generator,
            class_noun=self.noun,
            on_step=at_step,
            should_stop=self.should_stop,
        )
        weights = described(tuned.person, tuned.kept_step)
        self.clock.lap(stage)
        likeness = measure_likeness(
            bundle,
            self.photos,
            Row(PROMPT.format(noun=self.noun), weights=weights, seed=seed),
            self.judges,
            on_step=lambda step, of: self.report("likeness", step, of),
            should_stop=self.should_stop,
        )
        if likeness is not None:
            self.clock.lap("likeness")
        return _Made(weights, likeness, tuned.kept_step)


def _go_on(bundle: Bundle, weights: LidbWeights) -> Person:
    """Somebody's weights as factors with a leading dimension of one person."""
    if weights.metadata.kind != "lidb":
        raise WeightsMismatch("weights outside the basis cannot be gone on from: personalise anew, from all the photos")
    return {name: Factors(f.left[None], f.right[None]) for name, f in unpack(weights, bundle).items()}


def _settings(bundle: Bundle, options: PersonalizeOptions, photos: int) -> FinetuneConfig:
    default = bundle.config.finetune
    lowest = 1 if options.start is None else options.start.metadata.rank
    from_zero = options.start is None and bundle.starts_from_zero
    steps = options.steps or default.steps_taken(from_zero=from_zero, photos=photos)
    return replace(default, rank=max(options.rank or default.rank, lowest), steps=steps)


def _silent(_stage: str, _step: int, _of: int) -> None:
    return None


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the lap before to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now
