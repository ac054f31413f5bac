"""What the API knows of the model that the workers run: from its folder, or from what a worker has published."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from core.errors import BundleError, StoreUnavailable
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.description import ModelDescription, describe_folder
from core.models import ModelDescriptions
from hyperdreambooth import schemas
from hyperdreambooth.schemas import MAX_SIDE, MIN_SIDE, FieldProblem

if TYPE_CHECKING:
    from core.hyperdreambooth.model.prompt_check import PromptChecker

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 5.0
_UNUSUAL = 1.5
"""Sides of pictures, over the model's own or the other way round, from which a warning is due."""


@dataclass(frozen=True)
class Model:
    """A model and what can be asked of it. `description` is None when no worker has loaded it yet."""

    name: str
    description: ModelDescription | None

    @property
    def config(self) -> BundleConfig:
        """The bundle's settings; the defaults when they are not known."""
        return self.description.config if self.description else BundleConfig(name=self.name)

    @cached_property
    def prompts(self) -> PromptChecker | None:
        """What checks its prompts."""
        from core.hyperdreambooth.model.prompt_check import PromptChecker  # noqa: PLC0415  (loads a native library)

        return PromptChecker(self.description) if self.description and self.description.tokenizers else None

    @property
    def sides(self) -> range:
        """The widths and heights that it can make, in pixels."""
        multiple = self.description.pixels_multiple if self.description else 8
        return range(-(-MIN_SIDE // multiple) * multiple, MAX_SIDE + 1, multiple)

    def size_problems(self, body: schemas.GenerationOptions) -> list[FieldProblem]:
        """The sizes of a request that it cannot make."""
        problems = []
        for field, side in (("width", body.width), ("height", body.height)):
            if side is not None and side not in self.sides:
                near = min(self.sides, key=lambda each, wanted=side: abs(each - wanted))  # type: ignore[misc]
                message = f"This model makes multiples of {self.sides.step} from {self.sides[0]} to {self.sides[-1]} "
                problems.append(FieldProblem(field=field, message=f"{message}pixels; the nearest is {near}."))
        return problems

    def size_warnings(self, body: schemas.GenerationOptions) -> list[schemas.RequestWarning]:
        """The sizes of a request that it makes badly."""
        best = self.config.resolution
        sizes = {"width": body.width, "height": body.height} if self.description else {}
        return [
            schemas.RequestWarning(
                code="size-unusual",
                field=field,
                message=f"The model was trained at {best} pixels; a {field} of {side} gives poor pictures.",
            )
            for field, side in sizes.items()
            if side is not None and not best / _UNUSUAL <= side <= best * _UNUSUAL
        ]


class CurrentModel:
    """Gives the model that the settings name; what a worker has published is read again every few seconds."""

    def __init__(self, bundle: str, published: ModelDescriptions) -> None:
        self._bundle, self._published = bundle, published
        self._name = bundle.rstrip("/").rpartition("/")[2]
        self._lock = threading.Lock()
        self._text: bytes | None = None
        self._read_at = -_FRESH_SECONDS
        self._model = Model(self._name, None)

    def __call__(self) -> Model:
        """The model as it is known now. Says nothing about it when the store does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._read()
                self._read_at = time.monotonic()
            return self._model

    def _read(self) -> None:
        try:
            if Path(self._bundle).is_dir():
                if self._model.description is None:
                    description = describe_folder(Path(self._bundle), self._name)
                    self._model = Model(description.config.name, description)
            elif (text := self._published.get(self._bundle)) != self._text and text:
                description = ModelDescription.from_json(text)
                self._model, self._text = Model(description.config.name, description), text
        except (BundleError, StoreUnavailable) as error:
            _log.warning("model.unknown", extra={"code": error.code})


async def the_model_source(request: Request) -> CurrentModel:
    """What gives the model of this application."""
    source: CurrentModel = request.app.state.model
    return source


ModelDep = Annotated[CurrentModel, Depends(the_model_source)]
