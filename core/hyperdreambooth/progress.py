"""What can be seen of a personalization before it is done: its steps, its previews, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.hyperdreambooth.formats.lidb_weights import LidbWeights, describe
from core.hyperdreambooth.model.adapters import unstack
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import LayerFactors

SECOND_PREVIEW = 1 / 3
"""The share of the finetuning steps after which a picture resembles the person."""


@dataclass
class Progress:
    """The progress of one personalization. ``preview``: the last one; ``seconds``: the time of each stage so far."""

    bundle: Bundle
    class_noun: str
    on_progress: Callable[[str, int, int], None]
    on_preview: Callable[[LidbWeights], None] | None
    preview: LidbWeights | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def pack(self, factors: LayerFactors, step: int) -> LidbWeights:
        """The weights of a batch of one person, after so many finetuning steps."""
        return describe(self.bundle, unstack(factors)[0], class_noun=self.class_noun, kept_step=step)

    def show(self, factors: LayerFactors, step: int) -> None:
        """Hand out a preview; the time that its receiver takes is the stage "preview"."""
        self.preview = self.pack(factors, step)
        if self.on_preview is not None:
            self.on_preview(self.preview)
            self.lap("preview")

    def at_step(self, step: int, of: int, factors: LayerFactors, *, previews: bool) -> None:
        """Report a finetuning step; with ``previews``, show the weights after a third of the steps."""
        self.report("finetune", step, of)
        if previews and step == int(SECOND_PREVIEW * of):
            self.lap("finetune")
            self.show(factors, step)

    def report(self, stage: str, step: int, of: int) -> None:
        """Report a step; the time that others take meanwhile, whom its receiver lets in, is of no stage."""
        began = time.perf_counter()
        self.on_progress(stage, step, of)
        self._last += time.perf_counter() - began

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now
