"""From what was asked over the wire to the job service's requests."""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Callable

from api.server.errors import MalformedRequest
from core import errors
from core.records import GenerateRequest, Share, Subject, WeightsStage
from hyperdreambooth import schemas

GENERATION_ERRORS = (
    MalformedRequest,
    errors.SubjectNotFound,
    errors.SubjectNotReady,
    errors.UploadTooLarge,
    errors.UnsupportedMediaType,
    errors.InvalidInput,
    errors.QueueFull,
    errors.BrokerUnavailable,
    errors.StoreUnavailable,
)
"""What asking for pictures can end in, be it for one generation or for many."""


def generate_request(
    asked: schemas.GenerationRequest, find: Callable[[str], Subject]
) -> tuple[GenerateRequest, list[str]]:
    """The request, and what has to be said about it: a seed is drawn, and a prompt without `[V]` gets one.

    `find` gives a subject by its id, and may raise SubjectNotFound.
    """
    shares = shares_of(asked.blend or [])
    subject_id = shares[0].subject_id if shares else str(asked.subject_id)
    prompt, warnings = with_placeholder(asked.prompt, find(subject_id).class_noun or "face")
    seed = secrets.randbelow(schemas.MAX_SEED + 1) if asked.seed is None else asked.seed
    changes = {"prompt": prompt, "seed": seed, "stage": WeightsStage(asked.stage)}
    whose = {"subject_id": subject_id, "blend": shares if len(shares) > 1 else ()}
    return GenerateRequest.model_validate(asked.model_dump() | changes | whose), warnings


def shares_of(blend: list[schemas.BlendPart]) -> tuple[Share, ...]:
    """Weights that sum to 1, one for each subject; a subject that is named again gets more."""
    largest = max((part.weight for part in blend), default=1.0)
    weights: defaultdict[str, float] = defaultdict(float)
    for part in blend:
        weights[part.subject_id] += part.weight / largest
    total = sum(weights.values())
    return tuple(Share(subject_id=name, weight=weight / total) for name, weight in weights.items())


def with_placeholder(prompt: str, class_noun: str) -> tuple[str, list[str]]:
    """A prompt that names the person as `[V]`, and what has to be said about it when it did not."""
    marked = re.sub(r"\[v\]", schemas.PLACEHOLDER, prompt, flags=re.IGNORECASE)
    if schemas.PLACEHOLDER in marked:
        return marked, []
    added = f"{prompt} of a {schemas.PLACEHOLDER} {class_noun}"
    return added, [f'The prompt has no {schemas.PLACEHOLDER}; " of a {schemas.PLACEHOLDER} {class_noun}" was added.']
