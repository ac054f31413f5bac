"""The bodies of requests: the form with photos, a generation, a batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperdreambooth.client.options import GenerateOptions, PhotoOptions
from hyperdreambooth.client.refs import Photo, SubjectOrBlend, SubjectRef
from hyperdreambooth.client.request import given, id_of
from hyperdreambooth.schemas import PersonalizeOptions


def photo_form(photos: Photo | Sequence[Photo], *, consent: bool, options: PhotoOptions) -> dict[str, Any]:
    """`data` and `files` of a form; of `options` those of PersonalizeOptions become the field `options`."""
    values = given(options)
    how = {name: values.pop(name) for name in PersonalizeOptions.model_fields if name in values}
    fields = {name: _yes_or_no(value) if isinstance(value, bool) else value for name, value in values.items()}
    data = {"consent": _yes_or_no(consent), **fields, "options": json.dumps(how)}
    return {"data": data, "files": _files(photos)}


def check_form(photos: Photo | Sequence[Photo], face: str | None) -> dict[str, Any]:
    """`data` and `files` of the form with which photos are only checked."""
    return {"data": given({"face": face}), "files": _files(photos)}


def generation(subject: SubjectOrBlend, prompt: str, options: GenerateOptions) -> dict[str, Any]:
    """The JSON of a generation; a mapping is a blend."""
    source: dict[str, Any] = (
        {"blend": [{"subject_id": name, "weight": weight} for name, weight in subject.items()]}
        if isinstance(subject, Mapping)
        else {"subject_id": id_of(subject)}
    )
    return {**source, "prompt": prompt, **given(options)}


def batch(
    prompts: Sequence[str],
    subjects: Sequence[SubjectRef],
    items: Sequence[Mapping[str, Any]],
    defaults: GenerateOptions,
) -> dict[str, Any]:
    """The JSON of a batch."""
    lists = {"prompts": prompts, "subject_ids": [id_of(subject) for subject in subjects], "items": items}
    return {**{name: list(values) for name, values in lists.items() if values}, "defaults": given(defaults)}


def batch_file(lines: bytes | Path) -> dict[str, Any]:
    """`content` and `headers` of a JSONL body."""
    data = lines.read_bytes() if isinstance(lines, Path) else lines
    return {"content": data, "headers": {"Content-Type": "application/jsonl"}}


def _files(photos: Photo | Sequence[Photo]) -> list[tuple[str, tuple[str, bytes]]]:
    """The photos without their own file names, which may name the person."""
    several = [photos] if isinstance(photos, bytes | Path) else photos
    return [("photo", ("photo", photo.read_bytes() if isinstance(photo, Path) else photo)) for photo in several]


def _yes_or_no(value: bool) -> str:
    return "true" if value else "false"
