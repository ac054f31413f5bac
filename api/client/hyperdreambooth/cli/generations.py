"""`hdb generate`: a prompt becomes pictures."""

from __future__ import annotations

from argparse import Namespace

from hyperdreambooth.cli.arguments import add_options, add_pictures, add_wait, given_options, subject_or_blend
from hyperdreambooth.cli.output import Output, note
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.cli.pictures import write_pictures
from hyperdreambooth.cli.progress import wait_for_job
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import GenerationOptions


def add_commands(top: Commands) -> None:
    """`hdb generate`."""
    command = top.add("generate", generate, "make pictures of a subject, and print their paths")
    command.add_argument("subject", type=subject_or_blend, metavar="SUBJECT", help="its id; a blend reads ID=3,ID=1")
    command.add_argument("prompt", help='with [V] where the person goes: "a pencil sketch of a [V] face"')
    add_options(command, GenerationOptions)
    add_pictures(command)
    add_wait(command, "print the job's id instead, and do not wait for its pictures")


def generate(client: Client, args: Namespace, out: Output) -> None:
    """A prompt becomes pictures."""
    job = client.generate(args.subject, args.prompt, **given_options(args, GenerationOptions))
    for warning in job.warnings:
        note(warning.message)
    if args.wait:
        job = wait_for_job(client, job.id)
        out.show(job, *write_pictures(client, job.images or [], args, args.prompt))
    else:
        out.show(job, job.id)
