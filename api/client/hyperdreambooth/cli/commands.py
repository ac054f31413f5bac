"""What each command does. All of them raise Problem, JobFailed, NoPictures and OSError; results go to stdout."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from hyperdreambooth import schemas
from hyperdreambooth.cli.output import Output, note, when
from hyperdreambooth.cli.progress import ProgressLine
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import ItemStatus, JobStatus
from hyperdreambooth.schemas.batches import BatchAnswer

_MOST_SAID = 10
"""Items of a batch without pictures that are said one by one."""
SUFFIXES = {"lidb": ".lidb", "peft": ".peft.safetensors", "kohya": ".kohya.safetensors"}


_HOW = ("keep_photos", "rank", "steps", "seed")


class NoPictures(Exception):
    """There are no pictures, or not all that were asked for; says why."""


def personalize(client: Client, asked: Namespace, out: Output) -> None:
    """Photos become a subject."""
    options = _given(asked, "name", "class_noun", *_HOW)
    _show_ready(client, client.create_subject(asked.photos, consent=True, **options), asked, out)


def photos(client: Client, asked: Namespace, out: Output) -> None:
    """A subject gets more photos."""
    options = _given(asked, *_HOW)
    _show_ready(client, client.add_photos(asked.subject, asked.photos, consent=True, **options), asked, out)


def generate(client: Client, asked: Namespace, out: Output) -> None:
    """A prompt becomes pictures."""
    options = _given(asked, "n", "seed", "steps", "width", "height", "guidance_scale", "negative_prompt", "stage")
    job = client.generate(asked.whose, asked.prompt, **options)
    for warning in job.warnings:
        note(warning)
    if asked.wait:
        job = _wait(client, job.id)
        out.show(job, *_pictures(client, job, asked))
    else:
        out.show(job, job.id)


def batch(client: Client, asked: Namespace, out: Output) -> None:
    """A file of generations becomes pictures; also one that was sent before. Raises NoPictures when some have none."""
    known = asked.batch.startswith("bat_") and not Path(asked.batch).exists()
    found = client.batch(asked.batch) if known else client.upload_batch(Path(asked.batch))
    if not asked.wait:
        out.show(found, found.id)
        return
    progress = ProgressLine(sys.stderr)
    with _said_to_go_on(f"hdb batch {found.id}", found.id):
        try:
            found = client.wait_for_batch(
                found, on_progress=lambda now: progress.at("batch", _over(now), now.counts.total)
            )
        finally:
            progress.end()
    _write_results(client, found, asked, out)


def subjects(client: Client, _: Namespace, out: Output) -> None:
    """A table of subjects."""
    columns = {
        "ID": lambda subject: subject.id,
        "STATUS": lambda subject: subject.status,
        "NAME": lambda subject: subject.name or "-",
        "LIKENESS": lambda subject: "-" if subject.likeness is None else f"{subject.likeness:.2f}",
        "CREATED": lambda subject: when(subject.created_at),
    }
    out.show_all(client.subjects(), columns)


def jobs(client: Client, asked: Namespace, out: Output) -> None:
    """A table of jobs."""
    columns = {
        "ID": lambda job: job.id,
        "KIND": lambda job: job.kind,
        "STATUS": lambda job: job.status,
        "PROGRESS": lambda job: _progress(job) or "-",
        "SUBJECT": lambda job: job.subject_id,
        "CREATED": lambda job: when(job.created_at),
    }
    found = client.jobs(status=asked.status, kind=asked.kind, subject=asked.subject)
    out.show_all(islice(found, asked.n), columns)


def job(client: Client, asked: Namespace, out: Output) -> None:
    """A job, and its pictures."""
    found = _wait(client, asked.job) if asked.wait else client.job(asked.job)
    lines = ["  ".join(filter(None, (found.id, found.kind, found.status, _progress(found))))]
    if found.error:
        lines += [found.error.detail]
    if asked.out is not None:
        if found.status is not JobStatus.SUCCEEDED:
            raise NoPictures(f"The job is {found.status}: it has no pictures. Wait for it with --wait.")
        lines += _pictures(client, found, asked)
    out.show(found, *lines)


def cancel(client: Client, asked: Namespace, out: Output) -> None:
    """A job stops, or a batch."""
    if asked.job.startswith("bat_"):
        stopping = client.cancel_batch(asked.job)
        out.show(stopping, f"{stopping.id}  batch  {stopping.status}")
        return
    found = client.cancel(asked.job)
    is_asked = "" if found.status.is_final else ", and was asked to stop"
    out.show(found, f"{found.id}  {found.kind}  {found.status}{is_asked}")


def weights(client: Client, asked: Namespace, out: Output) -> None:
    """A weights file."""
    data = client.weights(asked.subject, format=asked.format, stage=asked.stage)
    file = asked.out or Path(f"{asked.subject}.{asked.stage}{SUFFIXES[asked.format]}")
    file.write_bytes(data)
    out.show(Written(file=str(file), bytes=len(data)), str(file))


def delete(client: Client, asked: Namespace, out: Output) -> None:
    """A subject is erased."""
    receipt = client.delete_subject(asked.subject)
    out.show(receipt, f"{receipt.subject_id} and what its {len(receipt.job_ids)} jobs made are erased.")


class Written(schemas.Answer):
    """A file."""

    file: str
    bytes: int


def _show_ready(client: Client, subject: schemas.SubjectAnswer, asked: Namespace, out: Output) -> None:
    """The subject, when its job is done."""
    if asked.wait:
        _wait(client, subject.job_id)
        subject = client.subject(subject)
    out.show(subject, subject.id)


def _wait(client: Client, job_id: str) -> schemas.JobAnswer:
    progress = ProgressLine(sys.stderr)
    with _said_to_go_on(f"hdb job {job_id} --wait", job_id):
        try:
            return client.wait(job_id, on_progress=progress)
        finally:
            progress.end()


@contextmanager
def _said_to_go_on(command: str, identifier: str) -> Iterator[None]:
    """Whoever stops waiting learns how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"It goes on: {command}, or hdb cancel {identifier}.")
        raise


def _pictures(client: Client, found: schemas.JobAnswer, asked: Namespace) -> list[str]:
    """Write the job's pictures; where they are."""
    asked.out.mkdir(parents=True, exist_ok=True)
    return [_picture(client, image, asked) for image in found.images or []]


def _picture(client: Client, image: schemas.ImageInfo, asked: Namespace) -> str:
    file: Path = asked.out / f"{image.id}.{asked.format}"
    file.write_bytes(client.image(image, kind=asked.format))
    return str(file)


def _write_results(client: Client, found: BatchAnswer, asked: Namespace, out: Output) -> None:
    """The pictures, and results.jsonl, which says of which item each of them is."""
    asked.out.mkdir(parents=True, exist_ok=True)
    items = client.batch_results(found)
    results: Path = asked.out / "results.jsonl"
    results.write_text("".join(f"{item.model_dump_json()}\n" for item in items))
    out.show(found, str(results), *(_picture(client, image, asked) for item in items for image in item.images or []))
    without = [item for item in items if item.status is not ItemStatus.SUCCEEDED]
    for item in without[:_MOST_SAID]:
        place = f"line {item.line}" if item.line else f"item {item.index}"
        note(f"{item.custom_id or place}: {item.error.detail if item.error else item.status}")
    if without:
        raise NoPictures(f"{len(without)} of {len(items)} items have no pictures; {results} says why.")


def _over(batch: BatchAnswer) -> int:
    return batch.counts.total - batch.counts.queued - batch.counts.running


def _progress(found: schemas.JobAnswer) -> str:
    if found.status is JobStatus.RUNNING and found.stage:
        return f"{found.stage} {found.step} of {found.total}"
    if found.status is JobStatus.QUEUED and found.position is not None:
        return f"{found.position} before it"
    return ""


def _given(asked: Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(asked, name)) is not None}
