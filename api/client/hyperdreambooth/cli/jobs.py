"""`hdb jobs`: what the service does, and how far it is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import islice

from hyperdreambooth.cli import batches
from hyperdreambooth.cli.arguments import add_id, add_limit, add_pictures
from hyperdreambooth.cli.output import Output, when
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.cli.pictures import NoPictures, write_pictures
from hyperdreambooth.cli.progress import percent, wait_for_job
from hyperdreambooth.client import Client, StreamedJobEvent
from hyperdreambooth.schemas import JobAnswer, JobKind, JobStatus


def add_commands(top: Commands) -> None:
    """`hdb jobs ...`, and the short forms."""
    jobs = top.noun("jobs", "list jobs, wait for them, cancel them")
    _add_filters(jobs.add("list", list_all, "list the jobs, newest first"))
    for commands, name in ((jobs, "show"), (top, "job")):
        command = commands.add(name, show, "show a job, and write its pictures with -o")
        add_id(command, "job")
        command.add_argument("--wait", action="store_true", help="until it is over")
        add_pictures(command, default=None)
    command = jobs.add("wait", show, "wait for a job, and write its pictures with -o")
    command.set_defaults(wait=True)
    add_id(command, "job")
    add_pictures(command, default=None)
    command = jobs.add("events", events, "print what happens to a job, as it happens, until it is over")
    add_id(command, "job")
    command.add_argument("--after", default="", metavar="EVENT", help="only what came after this event, by its id")
    add_id(jobs.add("cancel", cancel, "stop a job"), "job")
    add_id(top.add("cancel", cancel, "stop a job, or a batch"), "job")


def list_all(client: Client, args: Namespace, out: Output) -> None:
    """A table of jobs."""
    columns = {
        "ID": lambda job: job.id,
        "KIND": lambda job: job.kind,
        "STATUS": lambda job: job.status,
        "PROGRESS": lambda job: _progress(job) or "-",
        "SUBJECT": lambda job: job.subject_id,
        "CREATED": lambda job: when(job.created_at),
    }
    found = client.jobs(status=args.status, kind=args.kind, subject=args.subject)
    out.show_all(islice(found, args.n), columns)


def show(client: Client, args: Namespace, out: Output) -> None:
    """A job on one line, and its pictures. Raises NoPictures."""
    found = wait_for_job(client, args.job) if args.wait else client.job(args.job)
    lines = ["  ".join(filter(None, (found.id, found.kind, found.status, _progress(found))))]
    if found.error:
        lines += [found.error.detail]
    if args.out is not None:
        if found.status is not JobStatus.SUCCEEDED:
            raise NoPictures(f"The job is {found.status}: it has no pictures. Wait for it with --wait.")
        prompt = next((picture.prompt for picture in client.pictures(job=found)), None)
        lines += write_pictures(client, found.images or [], args, prompt)
    out.show(found, *lines)


def events(client: Client, args: Namespace, out: Output) -> None:
    """A line for each event."""
    for event in client.events(args.job, last_event_id=args.after):
        out.show(event, f"{event.id}  {event.type}  {_step(event)}".rstrip(), flush=True)


def cancel(client: Client, args: Namespace, out: Output) -> None:
    """A job stops, or a batch."""
    if args.job.startswith("bat_"):
        batches.cancel(client, Namespace(batch=args.job), out)
        return
    found = client.cancel(args.job)
    stopping = "" if found.status.is_final else ", and was asked to stop"
    out.show(found, f"{found.id}  {found.kind}  {found.status}{stopping}")


def _add_filters(command: ArgumentParser) -> None:
    for flag, values in (("--status", JobStatus), ("--kind", JobKind)):
        name = flag.removeprefix("--").upper()
        command.add_argument(flag, type=values, choices=list(values), metavar=name, help=", ".join(values))
    command.add_argument("--subject", metavar="SUBJECT", help="only those of this subject, by its id")
    add_limit(command)


def _progress(job: JobAnswer) -> str:
    if job.status is JobStatus.RUNNING:
        return _step(job)
    if job.status is JobStatus.QUEUED and job.position is not None:
        return f"{job.position} before it"
    return ""


def _step(at: JobAnswer | StreamedJobEvent) -> str:
    return f"{percent(at.progress)}  {at.stage} {at.step} of {at.total}" if at.stage else ""
