"""A BUNDLE.toml: everything a bundle is made from, as frozen dataclasses. Unknown keys are errors."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ValidationError

from core.errors import BundleError
from core.hyperdreambooth.model.config import BundleConfig, HyperNetworkConfig, LinearHyperNetworkConfig
from core.lab.training.loop import Optimization

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """Parquet files with columns ``image``, ``identity``, ``attributes``; paths are relative to the recipe's folder.

    ``styled`` is how many stylised versions of each picture the latent cache holds. ``identities``: trained on the
    first so many people who have several pictures, and no others. ``balanced`` of base's and hypernetwork's rows show a
    picture drawn by its attributes, so that rare ones are learnt too, those of ``emphasis`` so many times as often.
    ``teacher`` is a face recognition network
    (``FaceTeacher``) that the autoencoder learns from.
    """

    train: tuple[str, ...]
    evaluate: str
    styles: tuple[str, ...]
    styled: int = 2
    identities: int | None = None
    balanced: float = 0.0
    emphasis: Mapping[str, float] = field(default_factory=dict)
    teacher: str | None = None


@dataclass(frozen=True)
class Autoencoder:
    """AutoencoderKL with a fixed posterior spread ``noise`` instead of a learned one; ``centre`` weighs the face.

    Latents get noise of a spread up to that. Each step shows squares of ``crop`` pixels (0: whole pictures), ``styled``
    and ``recoloured`` are shares of them; ``smaller`` of the steps decode latents at half their size. ``penalty`` holds
    the latents' channels at mean 0 and spread 1; ``edges`` weighs the error of the differences of neighbouring pixels,
    ``taught`` what the teacher of ``data.teacher`` says, ``anchor`` how far latents are from those of the recipe's
    ``start``. A step's batch comes in ``slices``, one a process.
    """

    optimization: Optimization
    channels: tuple[int, ...] = (32, 64, 96)
    latent_channels: int = 8
    noise: float = 0.1
    penalty: float = 0.02
    centre: float = 3.0
    edges: float = 0.5
    styled: float = 0.25
    recoloured: float = 0.0
    smaller: float = 0.0
    crop: int = 0
    taught: float = 0.0
    anchor: float = 0.0
    slices: int = 1


@dataclass(frozen=True)
class Decoder:
    """The autoencoder's decoder trained on alone: latents stay what they are, and with them all that learnt from them.

    ``noise`` is what its latents get, less than the autoencoder's; ``edges``, ``taught`` and ``slices`` are as there.
    """

    optimization: Optimization
    noise: float = 0.02
    edges: float = 0.5
    taught: float = 0.0
    slices: int = 1


@dataclass(frozen=True)
class Classifier:
    """The classifier of styles and attributes that ships with the bundle."""

    optimization: Optimization
    attributes: tuple[str, ...]
    channels: tuple[int, ...] = (24, 48, 96, 128)


@dataclass(frozen=True)
class Recogniser:
    """The face recogniser that ships with the bundle; ``styled`` is the share of its training pictures in a style."""

    optimization: Optimization
    channels: tuple[int, ...] = (32, 64, 96, 160)
    scale: float = 20.0
    margin: float = 0.15
    styled: float = 0.3


@dataclass(frozen=True)
class Base:
    """The text-to-image base: its shape, and the shares of plain photos and of empty captions.

    An attention head is ``head`` wide. A step's batch comes in ``slices``, which the processes share out.
    """

    optimization: Optimization
    channels: tuple[int, ...] = (96, 160, 256)
    layers: int = 1
    text_width: int = 192
    text_layers: int = 3
    tokens: int = 24
    head: int = 64
    photo: float = 0.5
    empty: float = 0.1
    slices: int = 1

    def __post_init__(self) -> None:
        """A batch is a whole number of slices."""
        if self.optimization.batch % self.slices:
            raise BundleError(f"a batch of {self.optimization.batch} is no whole number of {self.slices} slices")


@dataclass(frozen=True)
class Preoptimize:
    """Batched pre-optimisation: ``people`` in all, ``group`` of them in one batch, ``rows`` rows each."""

    people: int
    group: int = 12
    rows: int = 4
    steps: int = 40
    learning_rate: float = 1e-2


@dataclass(frozen=True)
class HyperNetworkTraining:
    """HyperNetworkTraining training (section 4.2): diffusion loss + ``beta`` |w - w*|^2.

    The base is frozen, as in the paper; or it learns on, at the ``base_rate`` share of the learning rate. Rows beyond
    the ``personal`` share then train the base itself, without personal weights. ``other_photo`` is how often
    what a row shows is another photo of the person than the one the hypernetwork saw. For each photo there are
    ``warped`` synthetic faces, warped from it (``warp``), which are as likely; a base that learns on would draw them.
    Timesteps are drawn between ``least_noise`` and ``most_noise`` of the schedule; ``cleanest`` of the rows from below
    them, ``noisiest`` of the rows from its last tenth, where the picture is whatever the weights say it is.
    ``blur``: noise on what a network that sees embeddings is given, as a share of how far a person's photos are apart:
    people of whom there is one photo are seen nearly as in another one. A step's batch comes in ``slices``.
    ``taught``: how much it counts what ``data.teacher`` sees in a slice's first ``taught_rows`` personal rows: how far
    its numbers of what the model makes of the noise are from those that the network was given.
    """

    optimization: Optimization
    taught: float = 0.0
    taught_rows: int = 12
    least_noise: float = 0.0
    most_noise: float = 1.0
    cleanest: float = 0.0
    noisiest: float = 0.0
    beta: float = 0.02
    photo: float = 0.5
    empty: float = 0.0
    personal: float = 1.0
    base_rate: float = 0.0
    other_photo: float = 0.3
    identity: float = 0.1
    warped: int = 0
    blur: float = 0.0
    slices: int = 1

    def __post_init__(self) -> None:
        """Raises BundleError for synthetic faces beside a base that learns on: it would draw them."""
        if self.warped < 0 or (self.warped and self.base_rate):
            raise BundleError(f"warped {self.warped} is 0 or more, and 0 where the base learns on (base_rate)")


@dataclass(frozen=True)
class DemoFace:
    """The demo's face: a prompt and a seed, chosen by eye among the base model's pictures."""

    prompt: str = "a photo of a woman"
    seed: int = 0


class _InFolder:
    """A recipe knows the folder of its file."""

    folder: Path

    def path(self, relative: str) -> Path:
        """A path of the recipe, relative to the file it stands in."""
        return (self.folder / relative).resolve()


@dataclass(frozen=True)
class Recipe(_InFolder):
    """A whole bundle. ``folder`` receives it, ``work`` (ignored by git) checkpoints, caches and sheets.

    ``start`` is an earlier bundle whose parts these begin with (``inherit``); without one they begin at random.
    Without ``recogniser``, ``decoder``, ``preoptimize`` or ``identity`` there is no such stage. ``identity`` is the
    hypernetwork again, alone, at timesteps of its own.
    """

    output: str
    work: str
    seed: int
    bundle: BundleConfig
    data: Data
    network: HyperNetworkConfig | LinearHyperNetworkConfig
    autoencoder: Autoencoder
    classifier: Classifier
    base: Base
    hypernetwork: HyperNetworkTraining
    preoptimize: Preoptimize | None = None
    recogniser: Recogniser | None = None
    decoder: Decoder | None = None
    identity: HyperNetworkTraining | None = None
    demo_face: DemoFace | None = None
    start: str | None = None
    folder: Path = field(default_factory=Path)


@dataclass(frozen=True)
class Streamed:
    """Parquet files (``image``, ``identity``, ``attributes``) or WebDataset tar files; patterns such as ``*.parquet``.

    ``buffer`` pictures are shuffled at a time in each of a step's slices; ``readers`` processes read ahead for each
    training process. ``styles`` are painted as the rows are read.
    """

    train: tuple[str, ...]
    styles: tuple[str, ...] = ()
    buffer: int = 512
    readers: int = 2


@dataclass(frozen=True)
class LargeRecipe(_InFolder):
    """A hypernetwork for a base model that is given: a diffusers folder or a hub id, frozen and in half precision.

    ``optimization.batch`` rows a step come in slices of ``slice`` rows, the most that one device takes at a time.
    ``precision`` "bf16", "fp16" or "no"; None leaves it to ``accelerate launch --mixed_precision``.
    """

    base: str
    output: str
    work: str
    seed: int
    slice: int
    bundle: BundleConfig
    data: Streamed
    network: HyperNetworkConfig
    hypernetwork: HyperNetworkTraining
    preoptimize: Preoptimize | None = None
    precision: str | None = None
    folder: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        """A batch is a whole number of slices, and the base is given."""
        if self.hypernetwork.base_rate or self.hypernetwork.personal < 1:
            raise BundleError("the base of this recipe is frozen: hypernetwork.base_rate is 0, hypernetwork.personal 1")
        if self.hypernetwork.optimization.batch % self.slice:
            raise BundleError(f"a batch of {self.hypernetwork.optimization.batch} is no whole number of {self.slice}s")

    @property
    def slices(self) -> int:
        """How many slices a step has."""
        return self.hypernetwork.optimization.batch // self.slice


def load_recipe(file: Path) -> Recipe:
    """Read a recipe. Raises BundleError for unknown or missing keys, naming them."""
    return _load(Recipe, file)


def load_large_recipe(file: Path) -> LargeRecipe:
    """Read the recipe of a hypernetwork on a given base. Raises BundleError as ``load_recipe`` does."""
    return _load(LargeRecipe, file)


def _load(kind: type[T], file: Path) -> T:
    with file.open("rb") as stream:
        values = tomllib.load(stream)
    return _build(kind, {**values, "folder": file.parent}, where=file.name)


def _build(kind: type[T], values: dict[str, Any], *, where: str) -> T:
    hints = get_type_hints(kind)
    unknown = set(values) - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise BundleError(f"{where}: unknown key {', '.join(sorted(unknown))}")
    converted: dict[str, Any] = {}
    for key, value in values.items():
        nested = _table(hints[key], value)
        if nested is not None:
            converted[key] = _build(nested, value, where=f"{where}.{key}")
        else:
            converted[key] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**converted)
    except (BundleError, TypeError, ValidationError) as error:
        raise BundleError(f"{where}: {error}") from error


def _table(hint: Any, value: Any) -> Any:
    """The dataclass that a table is: of several, the first that knows all its keys (or the first, to name the key)."""
    kinds = [part for part in get_args(hint) or (hint,) if is_dataclass(part)]
    known = [kind for kind in kinds if isinstance(value, dict) and set(value) <= {f.name for f in fields(kind)}]
    return next(iter(known or kinds), None)
