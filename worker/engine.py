"""The engine: what owns the device. Pixels are NumPy arrays (uint8, RGB) and weights are the bytes of .lidb files.

Everything above knows this protocol only, so that it runs, and is tested, without torch: `worker.testing.FakeEngine` is
the fake. The real one is loaded in the worker's child, since CUDA must not be touched before the fork.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from core.errors import SettingsError
from core.hyperdreambooth.formats.exports import Layout
from core.settings import Settings

OnProgress = Callable[[str, int, int], None]
"""Called with the stage, the step and the number of steps."""


@dataclass(frozen=True)
class PersonalizeOptions:
    """What the caller may choose; None means the bundle's default. `start`: weights of the person to go on from."""

    rank: int | None = None
    steps: int | None = None
    seed: int = 0
    class_noun: str | None = None
    start: bytes | None = None


@dataclass(frozen=True)
class Personalized:
    """What personalising gave; `preview` are the weights of the last look before, `seconds` the time of each stage.

    `likeness_by` is what each recogniser says, by its name; `tries` is 2 when the first try's likeness was poor.
    """

    weights: bytes
    preview: bytes | None
    likeness_by: dict[str, float]
    kept_step: int
    seconds: dict[str, float]
    tries: int = 1

    @property
    def likeness(self) -> float | None:
        """The mean of the recognisers; None where there is none."""
        return sum(self.likeness_by.values()) / len(self.likeness_by) if self.likeness_by else None


@dataclass(frozen=True)
class Part:
    """One person of a blend: the weights, and their share; the shares of a blend sum to 1."""

    weights: bytes
    share: float


@dataclass(frozen=True)
class Row:
    """One picture to make. `[V]` in the prompt stands for the person of the weights, or for a blend of several."""

    prompt: str
    negative_prompt: str
    weights: bytes | tuple[Part, ...]
    seed: int
    guidance_scale: float | None


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

    def personalize(
        self,
        photos: UInt8[np.ndarray, "n h w 3"],
        options: PersonalizeOptions,
        *,
        on_progress: OnProgress,
        on_preview: Callable[[bytes], None],
        should_stop: Callable[[], bool],
    ) -> Personalized:
        """Photos of one person become weights.

        `on_preview` gets what can be looked at before: what the hypernetwork predicted, what some of the steps gave.
        It is not called when it goes on from `options.start`.

        Raises WeightsRefused for a start that is not this bundle's, JobCanceled when `should_stop` says so, which every
        step asks.
        """

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """One picture, quickly: few steps, at the bundle's own size. `on_preview` may call it. Raises JobCanceled."""

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
        """Pictures of all rows, which may be of different people, as one batch. A row's pixels depend on that row only.

        Raises JobCanceled as above, WeightsRefused for weights that are not this bundle's, InvalidInput for a size that
        the model cannot make.
        """


def load_engine(settings: Settings) -> Engine:
    """The engine that the settings name as `module:class`. Raises SettingsError; BundleError when it cannot load."""
    module, _, name = settings.engine.partition(":")
    try:
        make: Callable[[Settings], Engine] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"there is no engine {settings.engine!r}: {error}", field="engine") from error
    return make(settings)
