"""How much work a request is, known before it is accepted: what limits count, and what shares of a queue can be cut by.

The unit is a picture of the model's own size in its own number of steps: pixels x steps x n, over the model's.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.records import GenerateRequest, PersonalizeRequest, Request

_SAMPLING_PASSES = 2
"""Passes through the model for a step of a picture: with the prompt, and without it."""
_TRAINING_PASSES = 3
"""The same for a step of finetuning, for each row: one forward, and a backward that takes as long as two."""


@dataclass(frozen=True)
class WorkModel:
    """What a model does where a request leaves something out.

    `resolution` in pixels, `steps` of a picture, `finetune_steps` for one photo, with `finetune_rows` in each.
    """

    resolution: int
    steps: int
    finetune_steps: int
    finetune_rows: int

    def of(self, request: Request) -> float:
        """The work of a request, in pictures."""
        return self._pictures(request) if isinstance(request, GenerateRequest) else self._personalizing(request)

    def _pictures(self, request: GenerateRequest) -> float:
        pixels = (request.width or self.resolution) * (request.height or self.resolution)
        return pixels / self.resolution**2 * (request.steps or self.steps) / self.steps * request.n

    def _personalizing(self, request: PersonalizeRequest) -> float:
        steps = request.steps or self.finetune_steps * min(2.0, (len(request.photos) + 1) / 2)
        return steps * self.finetune_rows * _TRAINING_PASSES / (self.steps * _SAMPLING_PASSES)
