"""What is compared: HyperDreamBooth as a bundle has it, its ablations, and the methods the paper holds it against.

A method turns photos of people into ``Personalized``, one for each: the model to draw with, the personal factors (if it
has any), and the bytes that one person takes on a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.hyperdreambooth.finetune import TrainingLatents, encode_training_pictures, finetune
from core.hyperdreambooth.formats.lidb_weights import Precision, describe, merged_factors, to_bytes
from core.hyperdreambooth.model.adapters import unstack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.config import FinetuneConfig
from core.hyperdreambooth.model.hypernetwork import LinearHyperNetwork
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.model.lidb import LayerFactors
from core.hyperdreambooth.prediction import predict_weights
from core.lab.evaluation.ablations import finetune_full_lora, with_gaussian_basis
from core.lab.evaluation.baselines import dreambooth, textual_inversion
from core.lab.evaluation.subjects import Subject


@dataclass(frozen=True)
class Personalized:
    """What a method makes for one person; ``factors`` are merged (None: the model itself changed, or nothing did)."""

    bundle: Bundle
    factors: LayerFactors | None
    stored_bytes: int


Run = Callable[[Bundle, Sequence[Subject], int, float | None], list[Personalized]]
"""Bundle, people, seed and learning rate (None: the method's own) to one result for each person."""


@dataclass(frozen=True)
class Method:
    """A row of the tables. ``together``: many people fit in one batch; ``rates`` are the learning rates of a sweep.

    Without a sweep, a method learns at the rate that the sweep on the embedded bundle chose. ``missing`` says why a
    bundle cannot be personalized so, or None.
    """

    name: str
    title: str
    run: Run
    together: bool = True
    rates: tuple[float, ...] = ()
    missing: Callable[[Bundle], str | None] = lambda _bundle: None
    identifier: bool = True


def find_methods(names: Sequence[str]) -> list[Method]:
    """Methods by name, "all" for all of them. Raises KeyError for an unknown one."""
    if "all" in names:
        return list(METHODS.values())
    return [METHODS[name] for name in names]


def photo_latents(bundle: Bundle, chosen: Sequence[Subject]) -> Float[Tensor, "people c h w"]:
    """The latents of each person's photo."""
    with torch.no_grad():
        return encode_pictures(bundle, torch.from_numpy(np.stack([subject.photo for subject in chosen])))


def starting_point(
    bundle: Bundle, chosen: Sequence[Subject], *, seed: int, iterations: int | None = None
) -> LayerFactors:
    """What finetuning starts from, with a leading dimension of people: the hypernetwork's prediction, or zero."""
    if bundle.hypernetwork is None:
        generator = torch.Generator("cpu").manual_seed(seed)
        return bundle.basis.zeros(1, generator=generator, batch=(len(chosen),))
    return predict_weights(bundle, [torch.from_numpy(subject.photos) for subject in chosen], iterations)


def with_finetuning(bundle: Bundle, **changes: object) -> Bundle:
    """The bundle with other numbers for finetuning."""
    return bundle.configured(replace(bundle.config, finetune=replace(bundle.config.finetune, **changes)))  # type: ignore[arg-type]


def _refined(
    bundle: Bundle,
    chosen: Sequence[Subject],
    seed: int,
    rate: float | None,
    *,
    precision: Precision = "int8",
    iterations: int | None = None,
    change: Callable[[Bundle], Bundle] = lambda bundle: bundle,
    default: float | None = None,
) -> list[Personalized]:
    """Fast finetuning of all people in one batch; the result is what is read back from the file that is stored."""
    bundle = change(bundle)
    pictures, start, config = _inputs(bundle, chosen, seed, rate or default, iterations)
    generator = torch.Generator("cpu").manual_seed(seed)
    tuned = finetune(bundle, pictures, start, config, generator=generator)
    return [_stored(bundle, factors, tuned.kept_step, precision) for factors in unstack(tuned.factors)]


def _full_lora(
    bundle: Bundle,
    chosen: Sequence[Subject],
    seed: int,
    rate: float | None,
    *,
    change: Callable[[Bundle], Bundle] = lambda bundle: bundle,
    default: float,
) -> list[Personalized]:
    """The same outside the basis."""
    bundle = change(bundle)
    pictures, start, config = _inputs(bundle, chosen, seed, rate or default)
    generator = torch.Generator("cpu").manual_seed(seed)
    found = finetune_full_lora(bundle, pictures, start, config, generator)
    return [Personalized(bundle, factors, size) for factors, size in found]


def _inputs(
    bundle: Bundle, chosen: Sequence[Subject], seed: int, rate: float | None, iterations: int | None = None
) -> tuple[TrainingLatents, LayerFactors, FinetuneConfig]:
    """What finetuning of these people takes: their pictures, their start, and the bundle's configuration."""
    settings = bundle.config.finetune
    photos = torch.from_numpy(np.stack([subject.photos for subject in chosen]))
    steps = bundle.finetuning_steps(photos.shape[1])
    config: FinetuneConfig = replace(settings, steps=steps, learning_rate=rate or settings.learning_rate)
    origin = _from_zero(bundle) if bundle.starts_from_zero else bundle
    start = starting_point(origin, chosen, seed=seed, iterations=iterations)
    return encode_training_pictures(bundle, photos, config), start, config


def _predicted(bundle: Bundle, chosen: Sequence[Subject], seed: int, _rate: float | None) -> list[Personalized]:
    people = unstack(starting_point(bundle, chosen, seed=seed))
    return [_stored(bundle, factors, 0, "int8") for factors in people]


def _not_personalized(bundle: Bundle, chosen: Sequence[Subject], _seed: int, _rate: float | None) -> list[Personalized]:
    return [Personalized(bundle, None, 0)] * len(chosen)


def _stored(bundle: Bundle, factors: LayerFactors, step: int, precision: Precision) -> Personalized:
    weights = describe(bundle, factors, class_noun=bundle.class_noun, kept_step=step, precision=precision)
    return Personalized(bundle, merged_factors(weights, bundle), len(to_bytes(weights)))


def _one_by_one(make: Callable[[Bundle, Tensor, int, float], tuple[Bundle, int]], default: float) -> Run:
    def run(bundle: Bundle, chosen: Sequence[Subject], seed: int, rate: float | None) -> list[Personalized]:
        latents = photo_latents(bundle, chosen)
        made = [make(bundle, photo[None], seed, rate or default) for photo in latents]
        return [Personalized(changed, None, size) for changed, size in made]

    return run


def _of_one_photo(run: Run) -> Run:
    return lambda bundle, chosen, seed, rate: run(
        bundle, [replace(subject, more=None) for subject in chosen], seed, rate
    )


def _needs_hypernetwork(bundle: Bundle) -> str | None:
    return None if bundle.has_hypernetwork else "the bundle has no hypernetwork"


def _needs_iterations(bundle: Bundle) -> str | None:
    if isinstance(bundle.hypernetwork, LinearHyperNetwork):
        return "the bundle's hypernetwork is linear: it has no iterations"
    return _needs_hypernetwork(bundle)


def _needs_a_start(bundle: Bundle) -> str | None:
    return "the bundle finetunes from zero: its own row is this one" if bundle.starts_from_zero else None


def _needs_another_start(bundle: Bundle) -> str | None:
    own = None if bundle.starts_from_zero else "the bundle finetunes from its prediction: its own row is this one"
    return _needs_hypernetwork(bundle) or own


def _without_start(bundle: Bundle) -> Bundle:
    return with_finetuning(_from_zero(bundle), steps_from_zero=bundle.finetuning_steps())


def _from_prediction(bundle: Bundle) -> Bundle:
    return with_finetuning(bundle, from_prediction=True, steps=bundle.finetuning_steps())


def _from_zero(bundle: Bundle) -> Bundle:
    return bundle.configured(bundle.config, hypernetwork=None)


_ALL = (
    Method("hyperdreambooth", "HyperDreamBooth, as the bundle has it", _refined),
    Method("not-personalized", "the base model, not personalized", _not_personalized, identifier=False),
    Method("hypernetwork-only", "hypernetwork only", _predicted, missing=_needs_hypernetwork),
    Method(
        "without-hypernetwork",
        "without the hypernetwork, as many steps",
        partial(_refined, change=_without_start),
        missing=_needs_a_start,
    ),
    Method(
        "from-prediction",
        "from the hypernetwork's prediction, as many steps",
        partial(_refined, change=_from_prediction),
        missing=_needs_another_start,
    ),
    Method(
        "one-iteration", "k = 1", partial(_refined, iterations=1), missing=_needs_iterations
    ),
    Method("fp32", "stored in fp32 instead of int8", partial(_refined, precision="fp32")),
    Method(
        "gaussian-basis", "in a Gaussian basis", partial(_refined, change=with_gaussian_basis),
        missing=lambda bundle: None if bundle.starts_from_zero else "the bundle's prediction is made for its own basis",
    ),
    Method(
        "full-lora", "relaxed to a full LoRA, as many steps", partial(_full_lora, default=3e-3),
        rates=(1e-3, 3e-3, 1e-2),
    ),
    Method(
        "lora-dreambooth",
        "LoRA DreamBooth, rank 4, 400 iterations",
        _of_one_photo(partial(_full_lora, default=1e-3, change=lambda bundle: with_finetuning(
            _from_zero(bundle), rank=4, steps_from_zero=400, optimizer="adamw",
            least_noise=0.0, most_noise=1.0, styled_rows=0,
        ))),
        rates=(5e-4, 1e-3, 3e-3),
    ),
    Method(
        "dreambooth-1200", "DreamBooth, 1,200 iterations", _one_by_one(partial(dreambooth, steps=1200), 2e-5),
        together=False, rates=(5e-6, 2e-5, 1e-4),
    ),
    Method(
        "dreambooth-400", "DreamBooth, 400 iterations", _one_by_one(partial(dreambooth, steps=400), 1e-4),
        together=False, rates=(2e-5, 1e-4, 3e-4),
    ),
    Method(
        "dreambooth-40", "DreamBooth, 40 iterations", _one_by_one(partial(dreambooth, steps=40), 3e-4),
        together=False, rates=(1e-4, 3e-4, 1e-3),
    ),
    Method(
        "textual-inversion",
        "Textual Inversion, 5,000 iterations",
        _one_by_one(partial(textual_inversion, steps=5000), 5e-3),
        together=False, rates=(5e-3, 2e-2),
    ),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every row of the tables by its name."""

QUICK = ("hyperdreambooth", "not-personalized", "hypernetwork-only")
"""What is measured when no method is named."""
