"""`hdb batches`: many generations at once, from a JSONL file."""

from __future__ import annotations

import json
from argparse import Namespace
from itertools import islice
from pathlib import Path

from hyperdreambooth.cli.arguments import add_id, add_limit, add_pictures, add_wait, existing_file
from hyperdreambooth.cli.output import Output, note, when
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.cli.pictures import NoPictures, write_pictures
from hyperdreambooth.cli.progress import progress_line
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import BatchAnswer, BatchItemAnswer, ItemStatus

MAX_REASONS = 10
"""Items without pictures whose reasons are printed."""
NO_WAIT = "print the batch's id instead, and do not wait for its pictures"


def add_commands(top: Commands) -> None:
    """`hdb batches ...`, and the short form."""
    batches = top.noun("batches", "make many pictures at once, list batches, cancel them")
    command = batches.add("create", create, "make the pictures of a JSONL file, a generation in each line")
    command.add_argument("file", type=existing_file, metavar="FILE", help="a generation in each line")
    add_pictures(command)
    add_wait(command, NO_WAIT)
    add_limit(batches.add("list", list_all, "list the batches, newest first"))
    add_id(batches.add("show", show, "show how many items of a batch have each status"), "batch")
    command = batches.add("results", results, "wait for a batch, and write its pictures and results.jsonl")
    add_id(command, "batch")
    add_pictures(command)
    add_wait(command, "do not wait: write what there is now")
    add_id(batches.add("cancel", cancel, "stop a batch"), "batch")
    add_id(batches.add("delete", delete, "erase a batch, its prompts and its pictures"), "batch")
    command = top.add("batch", create_or_resume, "short for batches create, or for batches results")
    command.add_argument("batch", type=_file_or_id, metavar="FILE", help="or the id of a batch that was sent before")
    add_pictures(command)
    add_wait(command, NO_WAIT)


def create(client: Client, args: Namespace, out: Output) -> None:
    """A file of generations becomes pictures. Raises NoPictures when some have none."""
    _finish(client, client.upload_batch(args.file), args, out)


def create_or_resume(client: Client, args: Namespace, out: Output) -> None:
    """As `create`, or the same for a batch that was sent before."""
    is_file = isinstance(args.batch, Path)
    _finish(client, client.upload_batch(args.batch) if is_file else client.batch(args.batch), args, out)


def list_all(client: Client, args: Namespace, out: Output) -> None:
    """A table of batches."""
    columns = {
        "ID": lambda batch: batch.id,
        "STATUS": lambda batch: batch.status,
        "OVER": lambda batch: f"{_over(batch)} of {batch.counts.total}",
        "SUCCEEDED": lambda batch: str(batch.counts.succeeded),
        "CREATED": lambda batch: when(batch.created_at),
    }
    out.show_all(islice(client.batches(), args.n), columns)


def show(client: Client, args: Namespace, out: Output) -> None:
    """A batch on one line: its status, and how many items have each status."""
    found = client.batch(args.batch)
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.model_dump().items() if count)
    out.show(found, f"{found.id}  {found.status}  {counts.replace(' total', ' items')}")


def results(client: Client, args: Namespace, out: Output) -> None:
    """The pictures of a batch, and results.jsonl. Raises NoPictures when some items have none."""
    found = client.batch(args.batch)
    _write_results(client, _wait(client, found) if args.wait else found, args, out)


def cancel(client: Client, args: Namespace, out: Output) -> None:
    """A batch stops."""
    stopping = client.cancel_batch(args.batch)
    out.show(stopping, f"{stopping.id}  batch  {stopping.status}")


def delete(client: Client, args: Namespace, out: Output) -> None:
    """A batch is erased."""
    deleted = client.delete_batch(args.batch)
    out.show(deleted, f"{deleted.batch_id}, its prompts and its pictures are erased.")


def _finish(client: Client, batch: BatchAnswer, args: Namespace, out: Output) -> None:
    if args.wait:
        _write_results(client, _wait(client, batch), args, out)
    else:
        out.show(batch, batch.id)


def _wait(client: Client, batch: BatchAnswer) -> BatchAnswer:
    with progress_line(f"hdb batch {batch.id}", batch.id) as progress:
        return client.wait_for_batch(batch, on_progress=lambda now: progress.at("batch", _over(now), now.counts.total))


def _write_results(client: Client, batch: BatchAnswer, args: Namespace, out: Output) -> None:
    """The pictures, and results.jsonl: the items, with the `files` of each."""
    args.out.mkdir(parents=True, exist_ok=True)
    items = client.batch_results(batch)
    file: Path = args.out / "results.jsonl"
    written = []
    with file.open("w") as lines:
        for item in items:
            paths = write_pictures(client, item.images or [], args, item.prompt)
            lines.write(json.dumps(item.model_dump(mode="json") | {"files": paths}, ensure_ascii=False) + "\n")
            written += paths
    out.show(batch, str(file), *written)
    warned = [item for item in items if item.warnings]
    for item in warned[:MAX_REASONS]:
        for warning in item.warnings:
            note(f"{_named(item)}: {warning.message}")
    without = [item for item in items if item.status is not ItemStatus.SUCCEEDED]
    for item in without[:MAX_REASONS]:
        note(f"{_named(item)}: {item.error.detail if item.error else item.status}")
    if without:
        raise NoPictures(f"{len(without)} of {len(items)} items have no pictures; {file} says why.")


def _named(item: BatchItemAnswer) -> str:
    return item.custom_id or (f"line {item.line}" if item.line else f"item {item.index}")


def _over(batch: BatchAnswer) -> int:
    return batch.counts.total - batch.counts.queued - batch.counts.running


def _file_or_id(text: str) -> str | Path:
    return text if text.startswith("bat_") and not Path(text).exists() else existing_file(text)
