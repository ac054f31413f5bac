"""`hdb subjects`: photos of a person become a subject."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from hyperdreambooth.cli.arguments import add_id, add_options, add_wait, existing_file, given_options
from hyperdreambooth.cli.output import Output, note, when
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.cli.progress import wait_for_job
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import PersonalizeOptions, SubjectAnswer
from hyperdreambooth.schemas.base import Answer

SUFFIXES = {"lidb": ".lidb", "peft": ".peft.safetensors", "kohya": ".kohya.safetensors"}


def add_commands(top: Commands) -> None:
    """`hdb subjects ...`, and the short forms."""
    subjects = top.noun("subjects", "make subjects of photos, list them, delete them")
    for commands, name in ((subjects, "create"), (top, "personalize")):
        command = commands.add(name, create, "make a subject of photos of one person, and print its id")
        _add_photos(command)
        command.add_argument("--name", help="what to call the subject in lists")
        command.add_argument("--class-noun", metavar="NOUN", help="what [V] is: face")
    subjects.add("list", list_all, "list the subjects, newest first")
    add_id(subjects.add("show", show, "show a subject, and the progress of personalizing"), "subject")
    for commands, name in ((subjects, "add-photos"), (top, "photos")):
        command = commands.add(name, add_photos, "add photos to a subject, for new weights")
        add_id(command, "subject")
        _add_photos(command)
    for commands in (subjects, top):
        _add_weights(commands.add("weights", weights, "write a subject's weights to a file, and print its path"))
        add_id(commands.add("delete", delete, "erase a subject and everything that was made of it"), "subject")


def create(client: Client, args: Namespace, out: Output) -> None:
    """Photos become a subject."""
    options = given_options(args, PersonalizeOptions, besides=("name", "class_noun", "keep_photos", "face"))
    _show_ready(client, client.create_subject(args.photos, consent=True, **options), args, out)


def add_photos(client: Client, args: Namespace, out: Output) -> None:
    """A subject gets more photos."""
    options = given_options(args, PersonalizeOptions, besides=("keep_photos", "face"))
    _show_ready(client, client.add_photos(args.subject, args.photos, consent=True, **options), args, out)


def list_all(client: Client, _: Namespace, out: Output) -> None:
    """A table of subjects."""
    columns = {
        "ID": lambda subject: subject.id,
        "STATUS": lambda subject: subject.status,
        "NAME": lambda subject: subject.name or "-",
        "LIKENESS": _likeness,
        "CREATED": lambda subject: when(subject.created_at),
    }
    out.show_all(client.subjects(), columns)


def show(client: Client, args: Namespace, out: Output) -> None:
    """A subject on one line, and why it failed."""
    found = client.subject(args.subject)
    progress = f"{found.stage} {found.step} of {found.total}" if found.stage else ""
    likeness = f"likeness {_likeness(found)}" if found.likeness is not None else ""
    line = "  ".join(filter(None, (found.id, found.status, found.name, likeness, progress)))
    out.show(found, line, *([found.error.detail] if found.error else []))


def weights(client: Client, args: Namespace, out: Output) -> None:
    """A weights file."""
    data = client.weights(args.subject, format=args.format, stage=args.stage)
    file = args.out or Path(f"{args.subject}.{args.stage}{SUFFIXES[args.format]}")
    file.write_bytes(data)
    out.show(WrittenFile(file=str(file), bytes=len(data)), str(file))


def delete(client: Client, args: Namespace, out: Output) -> None:
    """A subject is erased."""
    receipt = client.delete_subject(args.subject)
    out.show(receipt, f"{receipt.subject_id} and what its {len(receipt.job_ids)} jobs made are erased.")


class WrittenFile(Answer):
    """A file that was written."""

    file: str
    bytes: int


def _add_photos(command: ArgumentParser) -> None:
    command.add_argument("photos", nargs="+", type=existing_file, metavar="PHOTO", help="one or more of one person")
    command.add_argument("--consent", action="store_true", required=True, help="the person has agreed")
    command.add_argument("--keep-photos", action="store_true", default=None, help="to learn them again with later ones")
    command.add_argument("--face", help="which face, where there are several: its number, or left,top,right,bottom")
    add_options(command, PersonalizeOptions)
    add_wait(command, "do not wait until it is ready")


def _add_weights(command: ArgumentParser) -> None:
    add_id(command, "subject")
    command.add_argument("--format", choices=list(SUFFIXES), default="lidb", help="(lidb)")
    command.add_argument("--stage", choices=["preview", "refined"], default="refined", help="(refined)")
    command.add_argument("-o", "--out", type=Path, metavar="FILE", help="the file (named after the subject)")


def _show_ready(client: Client, subject: SubjectAnswer, args: Namespace, out: Output) -> None:
    """Print the subject when its job is done, or at once with `--no-wait`, and what to know about its photos."""
    sent_before = subject.photos_sent - len(args.photos)
    for warning in subject.warnings:
        if warning.photo >= sent_before:
            note(f"photo {warning.photo - sent_before + 1}: {warning.message}")
    if args.wait:
        wait_for_job(client, subject.job_id)
        subject = client.subject(subject)
    out.show(subject, subject.id)


def _likeness(subject: SubjectAnswer) -> str:
    return "-" if subject.likeness is None else f"{subject.likeness:.2f}"
