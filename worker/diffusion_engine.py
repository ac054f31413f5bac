"""The engine that runs the method on a bundle. Importing this imports torch: only the worker's child does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from core.errors import SettingsError, WeightsMismatch
from core.hyperdreambooth import personalize as method
from core.hyperdreambooth import sampling
from core.hyperdreambooth.faces.onnx_recogniser import OnnxRecogniser, path_of
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, from_bytes, layout_of, to_bytes
from core.hyperdreambooth.likeness import OWN, Judge
from core.hyperdreambooth.model.blend import blend
from core.hyperdreambooth.model.bundle import load_bundle
from core.settings import Settings
from worker.engine import OnProgress, Part, Personalized, PersonalizeOptions, Row

_log = logging.getLogger(__name__)
_PREVIEW_STEPS = 20


class DiffusionEngine:
    """A bundle on its device. Keeps nothing of anybody between calls."""

    def __init__(self, settings: Settings) -> None:
        """Loads the bundle and the recognisers of the settings. Raises BundleError, SettingsError."""
        self._bundle = load_bundle(settings.bundle, device=settings.device)
        self._judges = _judges(settings.recognisers, settings.poor_likeness)
        if not self._bundle.has_hypernetwork:
            # Slower, and worth knowing: every personalisation starts from zero weights.
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

        def show(preview: LidbWeights) -> None:
            on_preview(to_bytes(preview))

        done = method.personalize(
            self._bundle,
            torch.from_numpy(photos),
            method.PersonalizeOptions(
                rank=options.rank,
                steps=options.steps,
                seed=options.seed,
                class_noun=options.class_noun,
                start=None if options.start is None else from_bytes(options.start),
            ),
            judges=self._judges,
            on_progress=on_progress,
            on_preview=show,
            should_stop=should_stop,
        )
        return Personalized(
            weights=to_bytes(done.weights),
            preview=to_bytes(done.preview) if done.preview is not None else None,
            likeness_by=done.likeness.by if done.likeness is not None else {},
            kept_step=done.kept_step,
            seconds=dict(done.seconds),
            tries=done.tries,
        )

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """See Engine."""
        pictures = self.generate(
            [row], steps=_PREVIEW_STEPS, height=None, width=None, on_progress=on_progress, should_stop=should_stop
        )
        return np.asarray(pictures[0])

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
        opened = {weights: self._open(weights) for weights in {row.weights for row in rows}}
        batch = [
            sampling.Row(
                prompt=row.prompt,
                negative_prompt=row.negative_prompt,
                weights=opened[row.weights],
                seed=row.seed,
                guidance_scale=row.guidance_scale,
            )
            for row in rows
        ]
        pictures = sampling.generate(
            self._bundle,
            batch,
            steps=steps,
            height=height,
            width=width,
            on_step=lambda step, total: on_progress("generate", step, total),
            should_stop=should_stop,
        )
        return pictures.numpy()

    def _open(self, weights: bytes | tuple[Part, ...]) -> LidbWeights:
        """One person's weights, or the weighted sum of several. Raises WeightsRefused."""
        if isinstance(weights, bytes):
            return from_bytes(weights)
        people = [from_bytes(part.weights) for part in weights]
        if len({each.metadata.kind for each in people}) > 1:
            raise WeightsMismatch("These subjects cannot be blended: some of them have to be personalised again.")
        return blend(people, [part.share for part in weights], self._bundle)


def _judges(files: Sequence[Path], poor: float | None) -> tuple[Judge, ...]:
    """The operator's recognisers, called as their files; the first says what is ``poor``. Raises SettingsError."""
    names = [path_of(file).stem for file in files]
    if len({OWN, *names}) <= len(names):
        raise SettingsError(
            f"recognisers need names of their own, other than {OWN!r}: {', '.join(names)}", field="recognisers"
        )
    judges = zip(names, map(OnnxRecogniser, files), strict=True)
    return tuple(Judge(name, embed, None if place else poor) for place, (name, embed) in enumerate(judges))
