"""The engine: what owns the device. Pixels are NumPy arrays (uint8, RGB) and weights are the bytes of .lidb files.

Callers know this protocol only, so that they run, and are tested, without torch: `worker.testing.FakeEngine` is the
fake. The real engine is loaded in the worker's child, since CUDA must not be touched before the fork.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from core.errors import SettingsError
from core.hyperdreambooth import records
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.model.description import ModelDescription
from core.records import GenerateRequest, GenerationOptions, PersonalizeRequest
from core.settings import Settings
from worker.identities import Embeddings

_OPTIONS = frozenset(GenerationOptions.model_fields) - {"seed"}
OnProgress = Callable[[str, int, int], None]
"""Called with the stage, the step and the number of steps."""


@dataclass(frozen=True)
class Part:
    """One subject of a blend: the weights, and their share; the shares of a blend sum to 1."""

    weights: bytes
    share: float


PersonalizeOptions = records.PersonalizeOptions[bytes]
"""The method's options; `start` is a .lidb file."""

Personalized = records.Personalized[bytes]
"""The method's result; weights are .lidb files."""


class Row(records.Row[bytes | tuple[Part, ...]]):
    """The method's row; its weights are a .lidb file, or a blend of several."""


class Engine(Protocol):
    """Runs the method. One thread calls it, one call at a time; made with the settings, which may raise BundleError."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def fingerprint(self) -> str:
        """The bundle's hash: weights made with another one do not fit."""

    @property
    def layout(self) -> Layout:
        """What the API has to know of the bundle to make files for other programs."""

    @property
    def description(self) -> ModelDescription | None:
        """What the API has to know of the bundle to check prompts and sizes; None: nothing can be said."""

    def check(self) -> None:
        """Compute something small. Raises whatever the device does when it is sick."""

    def device_memory(self) -> dict[str, int]:
        """The device's memory in bytes: `allocated` and `reserved` by this process, `total`; empty on a CPU."""

    def personalize(
        self,
        photos: UInt8[np.ndarray, "n h w 3"],
        options: PersonalizeOptions,
        *,
        on_progress: OnProgress,
        on_preview: Callable[[bytes], None],
        should_stop: Callable[[], bool],
    ) -> Personalized:
        """The weights of one person, from photos.

        `on_preview` gets weights that can be used before they are done: the hypernetwork's prediction, then those
        after some of the steps. It is not called with an `options.start`.

        Raises WeightsRefused for a start that is not this bundle's, JobCanceled when `should_stop`, which is called
        before every step, returns True.
        """

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """One picture, quickly: few steps, at the bundle's own size. `on_preview` may call it. Raises JobCanceled."""

    def embed(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Embeddings:
        """What each recogniser sees in aligned pictures; empty without recognisers."""

    def generate(
        self,
        rows: Sequence[Row],
        *,
        steps: int | None,
        height: int | None,
        width: int | None,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures of all rows, which may be of different subjects, as one batch.

        A row's pixels depend on that row only.

        Raises JobCanceled like `personalize`, WeightsRefused for weights that are not this bundle's, InvalidInput for a
        size that the model cannot make.
        """


def options_of(request: PersonalizeRequest, start: bytes | None) -> PersonalizeOptions:
    """The options of the request, under the same names, and the weights to start from."""
    names = {each.name for each in fields(records.PersonalizeOptions)} - {"start"}
    return PersonalizeOptions(**{name: getattr(request, name) for name in names}, start=start)


def rows_of(request: GenerateRequest, weights: bytes | tuple[Part, ...]) -> list[Row]:
    """A row for each picture: what a row has of the request's options, under the same names."""
    options = {each.name: getattr(request, each.name) for each in fields(Row) if each.name in _OPTIONS}
    return [Row(**options, weights=weights, seed=seed) for seed in request.seeds]


def load_engine(settings: Settings) -> Engine:
    """The engine that the settings name as `module:class`. Raises SettingsError; BundleError when it cannot load."""
    module, _, name = settings.engine.partition(":")
    try:
        make: Callable[[Settings], Engine] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"there is no engine {settings.engine!r}: {error}", field="engine") from error
    return make(settings)
