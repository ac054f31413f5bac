"""From what a request says over the wire to what the services take."""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import Depends, Request

from api.server.errors import InvalidFields, MalformedRequest
from api.server.model import Model
from core import errors
from core.records import GenerateRequest, Share, Subject, WeightsStage
from hyperdreambooth import schemas

if TYPE_CHECKING:
    from core.hyperdreambooth.model.prompt_check import PromptChecker

GENERATION_ERRORS = (
    MalformedRequest,
    errors.SubjectNotFound,
    errors.SubjectNotReady,
    errors.UploadTooLarge,
    errors.UnsupportedMediaType,
    errors.InvalidInput,
    errors.QueueFull,
    errors.ServiceBusy,
    errors.BrokerUnavailable,
    errors.StoreUnavailable,
)
"""What asking for pictures can end in, be it for one generation or for many."""


async def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType when the Content-Type is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise errors.UnsupportedMediaType("Send a JSON body with Content-Type: application/json.")


JsonOnly = Depends(require_json)


def generate_request(
    body: schemas.GenerationRequest, find: Callable[[str], Subject], model: Model
) -> tuple[GenerateRequest, list[schemas.RequestWarning]]:
    """The request, and what has to be said about it: a seed is drawn, and a prompt without `[V]` gets one.

    `find` gives a subject by its id, and may raise SubjectNotFound. Raises InvalidFields: a size that the model cannot
    make.
    """
    shares = shares_of(body.blend or [])
    subject_id = shares[0].subject_id if shares else str(body.subject_id)
    noun = find(subject_id).class_noun or model.config.class_noun
    if problems := model.size_problems(body):
        raise InvalidFields(problems)
    prompt, warnings = with_placeholder(body.prompt, noun, model.prompts)
    warnings += checked("prompt", prompt, model.prompts)
    warnings += checked("negative_prompt", body.negative_prompt, model.prompts)
    warnings += model.size_warnings(body)
    seed = secrets.randbelow(schemas.MAX_SEED + 1) if body.seed is None else body.seed
    changes = {"prompt": prompt, "seed": seed, "stage": WeightsStage(body.stage)}
    whose = {"subject_id": subject_id, "blend": shares if len(shares) > 1 else ()}
    return GenerateRequest.model_validate(body.model_dump() | changes | whose), warnings


def shares_of(blend: list[schemas.BlendPart]) -> tuple[Share, ...]:
    """Weights that sum to 1, one for each subject; a subject that is named again gets more."""
    largest = max((part.weight for part in blend), default=1.0)
    weights: defaultdict[str, float] = defaultdict(float)
    for part in blend:
        weights[part.subject_id] += part.weight / largest
    total = sum(weights.values())
    return tuple(Share(subject_id=name, weight=weight / total) for name, weight in weights.items())


def with_placeholder(
    prompt: str, class_noun: str, checker: PromptChecker | None
) -> tuple[str, list[schemas.RequestWarning]]:
    """A prompt that names the person as `[V]`, and what has to be said about it when it did not.

    What is added stands at the end; where the model would not read it there, at the beginning.
    """
    marked = re.sub(r"\[v\]", schemas.PLACEHOLDER, prompt, flags=re.IGNORECASE)
    if schemas.PLACEHOLDER in marked:
        return marked, []
    person = f"a {schemas.PLACEHOLDER} {class_noun}"
    made = f"{prompt} of {person}"
    added = f'" of {person}" was added'
    if checker and checker.kept(made) != made:
        made, added = f"{person}, {prompt}", f'"{person}, " was put before it'
    message = f"The prompt has no {schemas.PLACEHOLDER}; {added}."
    return made, [schemas.RequestWarning(code="placeholder-added", field="prompt", message=message)]


def checked(field: str, prompt: str, checker: PromptChecker | None) -> list[schemas.RequestWarning]:
    """What the model does not hear of a prompt."""
    return [
        schemas.RequestWarning(code=each.code, field=field, message=each.message, words=list(each.words))
        for each in (checker.check(prompt) if checker else ())
    ]
