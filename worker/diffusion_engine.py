"""The engine that runs the method on a bundle. Importing this imports torch: only the worker's child does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from core.errors import SettingsError
from core.hyperdreambooth import personalize as method
from core.hyperdreambooth import sampling
from core.hyperdreambooth.faces.onnx_recogniser import OnnxRecogniser, path_of
from core.hyperdreambooth.formats.blend import blend
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, from_bytes, layout_of, to_bytes
from core.hyperdreambooth.formats.merged import MergedFactors
from core.hyperdreambooth.likeness import OWN, Recogniser, recognisers_of
from core.hyperdreambooth.model.description import ModelDescription
from core.hyperdreambooth.model.latents import resize
from core.hyperdreambooth.model.loading import load_bundle
from core.settings import Settings
from worker.cores import allowed_cores
from worker.engine import OnProgress, Part, Personalized, PersonalizeOptions, Row
from worker.identities import Embeddings

_log = logging.getLogger(__name__)
_PREVIEW_STEPS = 10
"""Of pictures made before the weights are done: these take half the time of 20, and differ by two gray levels
of 255 in the mean, with the same likeness."""


class DiffusionEngine:
    """A bundle on its device. No photo or picture is kept between calls, and weights for 30 seconds at most."""

    def __init__(self, settings: Settings) -> None:
        """Loads the bundle and the recognisers of the settings. Raises BundleError, SettingsError."""
        torch.set_num_threads(settings.threads or min(torch.get_num_threads(), allowed_cores()))
        self._bundle = load_bundle(settings.bundle, device=settings.device)
        self._recognisers = _recognisers(settings.recognisers)
        self._merged = MergedFactors()
        if not self._bundle.has_hypernetwork:
            # Worth a warning: there are no immediate previews, and finetuning starts from zero weights.
            _log.warning("engine.no_hypernetwork", extra={"steps": self._bundle.finetuning_steps()})

    @property
    def name(self) -> str:
        """See Engine."""
        return self._bundle.name

    @property
    def fingerprint(self) -> str:
        """See Engine."""
        return self._bundle.fingerprint

    @property
    def layout(self) -> Layout:
        """See Engine."""
        return layout_of(self._bundle)

    @property
    def description(self) -> ModelDescription | None:
        """See Engine."""
        return self._bundle.description

    def check(self) -> None:
        """See Engine: one step of a picture without weights."""
        self.generate(
            [Row("a face", "", None, 0, None)],
            steps=1,
            height=None,
            width=None,
            on_progress=lambda *_: None,
            should_stop=lambda: False,
        )

    def device_memory(self) -> dict[str, int]:
        """See Engine."""
        device = self._bundle.device
        if device.type != "cuda":
            return {}
        return {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "total": torch.cuda.mem_get_info(device)[1],
        }

    def personalize(
        self,
        photos: UInt8[np.ndarray, "n h w 3"],
        options: PersonalizeOptions,
        *,
        on_progress: OnProgress,
        on_preview: Callable[[bytes], None],
        should_stop: Callable[[], bool],
    ) -> Personalized:
        """See Engine."""
        done = method.personalize(
            self._bundle,
            torch.from_numpy(photos),
            options.converted(from_bytes),
            recognisers=self._recognisers,
            on_progress=on_progress,
            on_preview=lambda preview: on_preview(to_bytes(preview)),
            should_stop=should_stop,
        )
        return done.converted(to_bytes)

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """See Engine."""
        pictures = self.generate(
            [row], steps=_PREVIEW_STEPS, height=None, width=None, on_progress=on_progress, should_stop=should_stop
        )
        return np.asarray(pictures[0])

    def embed(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Embeddings:
        """See Engine."""
        square = resize(torch.from_numpy(pictures), self._bundle.resolution).numpy()
        return {each.name: each.embed(square) for each in recognisers_of(self._bundle, self._recognisers)}

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
        """See Engine. Weights that several rows share are opened once, and blended once."""
        opened = {weights: self._open(weights) for weights in {row.weights for row in rows} if weights is not None}
        pictures = sampling.generate(
            self._bundle,
            [row.converted(opened.__getitem__) for row in rows],
            steps=steps,
            height=height,
            width=width,
            on_step=lambda step, total: on_progress("generate", step, total),
            should_stop=should_stop,
            merge=self._merged,
        )
        return pictures.numpy()

    def _open(self, weights: bytes | tuple[Part, ...]) -> LidbWeights:
        """One subject's weights, or the weighted sum of several. Raises WeightsRefused."""
        if isinstance(weights, bytes):
            return from_bytes(weights)
        subjects = [from_bytes(part.weights) for part in weights]
        return blend(subjects, [part.share for part in weights], self._bundle)


def _recognisers(files: Sequence[Path]) -> tuple[Recogniser, ...]:
    """The operator's recognisers, named by their files. Raises SettingsError."""
    names = [path_of(file).stem for file in files]
    if len({OWN, *names}) <= len(names):
        raise SettingsError(
            f"recognisers need names of their own, other than {OWN!r}: {', '.join(names)}", field="recognisers"
        )
    return tuple(Recogniser(name, OnnxRecogniser(file)) for name, file in zip(names, files, strict=True))
