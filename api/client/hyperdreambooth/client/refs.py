"""What the methods of the clients take: a subject, job, image, webhook or batch as an answer, or as its id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from hyperdreambooth.client.request import id_of
from hyperdreambooth.schemas import BatchAnswer, ImageInfo, JobAnswer, SubjectAnswer, WebhookAnswer

Photo: TypeAlias = bytes | Path
ImageFormat: TypeAlias = Literal["png", "webp"]

SubjectRef: TypeAlias = str | SubjectAnswer
SubjectOrBlend: TypeAlias = SubjectRef | Mapping[str, float]
"""One subject, or a blend of several: weights by the subjects' ids."""
JobRef: TypeAlias = str | JobAnswer | SubjectAnswer
"""A subject means the job that personalizes it."""
ImageRef: TypeAlias = str | ImageInfo
WebhookRef: TypeAlias = str | WebhookAnswer
BatchRef: TypeAlias = str | BatchAnswer


def job_id_of(ref: JobRef) -> str:
    """The id of a job, or of the job that personalizes a subject."""
    return ref.job_id if isinstance(ref, SubjectAnswer) else id_of(ref)
