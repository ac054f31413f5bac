"""The command line `hdb`: what it takes, and what it ends with.

Exit status: 0 done; 1 refused, failed or not reached, with the reason on stderr; 2 the command line is wrong;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx

from core.errors import HyperDreamBoothError
from hyperdreambooth.cli import commands, keys, service, webhooks
from hyperdreambooth.cli.output import Output, complain, complain_of
from hyperdreambooth.client import Client, JobFailed, Problem
from hyperdreambooth.client.sync.connection import DEFAULT_URL
from hyperdreambooth.schemas import JobKind, JobStatus
from hyperdreambooth.schemas.webhooks import WebhookEventName

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[ArgumentParser]  # noqa: SLF001 - it has no other name

OK, FAILED, MISUSED, STOPPED = 0, 1, 2, 130
EPILOG = """
environment:
  HDB_URL      where the service is (http://127.0.0.1:8000)
  HDB_API_KEY  your key, where the service asks for one

exit status: 0 done, 1 refused or failed, 2 the command line is wrong, 130 stopped by Ctrl-C
"""


def main(argv: Sequence[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Do what the command line says; gives the exit status. `transport` is for tests."""
    asked = parser().parse_args(argv)
    try:
        if asked.command == "keys":
            asked.run(asked)
        else:
            _with_client(asked, transport)
    except Problem as problem:
        complain_of(problem)
    except (JobFailed, commands.NoPictures) as error:
        complain(str(error))
    except HyperDreamBoothError as error:
        complain(error.title(), error.detail)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return STOPPED
    else:
        return OK
    return FAILED


def parser() -> ArgumentParser:
    """Everything that `hdb` takes."""
    common = ArgumentParser(add_help=False)
    common.add_argument("--url", default=SUPPRESS, help="where the service is ($HDB_URL)")
    common.add_argument("--api-key", default=SUPPRESS, metavar="KEY", help="your key ($HDB_API_KEY)")
    common.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON, a document a line")
    whole = ArgumentParser(
        prog="hdb",
        description="Pictures of a person, from one photo of a face.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    group = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_making(partial(_add, group, common))
    _add_looking(partial(_add, group, common))
    text = "have what happens posted to an address, and see how that goes"
    names = group.add_parser("webhooks", help=text, description=text).add_subparsers(dest="what", required=True)
    _add_webhooks(partial(_add, names, common))
    _add_keys(group)
    return whole


def _add(group: Commands, common: ArgumentParser, name: str, run: Callable[..., None], text: str) -> ArgumentParser:
    command = group.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
    command.set_defaults(run=run)
    return command


def _add_making(add: Callable[..., ArgumentParser]) -> None:
    personalize = add("personalize", commands.personalize, "make a subject of photos of one person, and print its id")
    _add_photos(personalize)
    personalize.add_argument("--name", help="what to call the subject in lists")
    personalize.add_argument("--class-noun", metavar="NOUN", help="what [V] is: face")
    photos = add("photos", commands.photos, "add photos to a subject: new weights of them")
    photos.add_argument("subject", metavar="SUBJECT", help="its id")
    _add_photos(photos)

    generate = add("generate", commands.generate, "make pictures of a subject, and print where they are")
    generate.add_argument("whose", type=_whose, metavar="SUBJECT", help="its id; a blend reads ID=3,ID=1")
    generate.add_argument("prompt", help='with [V] where the person goes: "a pencil sketch of a [V] face"')
    generate.add_argument("-n", type=int, metavar="N", help="how many pictures (1)")
    for name, text in (("seed", "of the first picture"), ("steps", "denoising steps"), ("width", ""), ("height", "")):
        generate.add_argument(f"--{name}", type=int, metavar="N", help=text or "in pixels")
    generate.add_argument("--guidance-scale", type=float, metavar="X", help="how strictly the prompt is followed")
    generate.add_argument("--negative-prompt", metavar="TEXT", help="what should not be in the pictures")
    generate.add_argument("--stage", choices=["preview", "refined"], help="preview: the first weights")
    _add_pictures(generate)
    _add_wait(generate, "print the job's id instead, and do not wait for its pictures")

    batch = add("batch", commands.batch, "make the pictures of a JSONL file, a generation in each line")
    batch.add_argument("batch", type=_lines, metavar="FILE", help="or the id of a batch that was sent before")
    _add_pictures(batch)
    _add_wait(batch, "print the batch's id instead, and do not wait for its pictures")


def _add_looking(add: Callable[..., ArgumentParser]) -> None:
    add("subjects", commands.subjects, "list the subjects, newest first")
    jobs = add("jobs", commands.jobs, "list the jobs, newest first")
    jobs.add_argument("--status", type=JobStatus, choices=list(JobStatus), metavar="STATUS", help=", ".join(JobStatus))
    jobs.add_argument("--kind", type=JobKind, choices=list(JobKind), metavar="KIND", help=", ".join(JobKind))
    jobs.add_argument("--subject", metavar="SUBJECT", help="only those of this subject, by its id")
    jobs.add_argument("-n", type=int, default=20, metavar="N", help="how many at most (20)")
    job = add("job", commands.job, "show a job, and write its pictures with -o")
    job.add_argument("job", metavar="JOB", help="its id")
    job.add_argument("--wait", action="store_true", help="until it is over")
    _add_pictures(job, default=None)
    cancel = add("cancel", commands.cancel, "stop a job, or a batch")
    cancel.add_argument("job", metavar="JOB", help="its id")
    weights = add("weights", commands.weights, "write a subject's weights to a file, and print where it is")
    weights.add_argument("subject", metavar="SUBJECT", help="its id")
    weights.add_argument("--format", choices=list(commands.SUFFIXES), default="lidb", help="(lidb)")
    weights.add_argument("--stage", choices=["preview", "refined"], default="refined", help="(refined)")
    weights.add_argument("-o", "--out", type=Path, metavar="FILE", help="the file (named after the subject)")
    delete = add("delete", commands.delete, "erase a subject and everything that was made of it")
    delete.add_argument("subject", metavar="SUBJECT", help="its id")
    add("models", service.models, "list the models that the service runs")
    usage = add("usage", service.usage, "show the jobs, pictures and seconds of the last days")
    usage.add_argument("--days", type=int, default=30, metavar="N", help="how many days, today included (30)")


def _add_webhooks(add: Callable[..., ArgumentParser]) -> None:
    create = add("create", webhooks.create, "make a webhook, and print its id and its secret, once")
    create.add_argument("address", metavar="URL", help="a public https address")
    names = get_args(WebhookEventName)
    create.add_argument(
        "--event", dest="events", action="append", choices=names, metavar="NAME", help=f"{', '.join(names)} (all)"
    )
    create.add_argument("--description", metavar="TEXT", help="for yourself")
    add("list", webhooks.list_all, "list the webhooks, without their secrets")
    for name, run, text in (
        ("test", webhooks.test, "send a message that only says hello"),
        ("deliveries", webhooks.deliveries, "list the newest messages, and how the attempts at them went"),
        ("rotate", webhooks.rotate, "change a webhook's secret, and print the new one, once"),
        ("enable", webhooks.enable, "tell it things again, after its address had said 410 (Gone)"),
        ("delete", webhooks.delete, "have nothing told there any more, also not what was due"),
    ):
        command = add(name, run, text)
        command.add_argument("webhook", metavar="WEBHOOK", help="its id")
        if name == "deliveries":
            command.add_argument("-n", type=int, default=20, metavar="N", help="how many at most (20)")
        if name == "rotate":
            hours = "how long the old one counts as well (24); 0 when others know it"
            command.add_argument("--overlap-hours", type=int, default=24, metavar="N", help=hours)


def _add_keys(group: Commands) -> None:
    """These take no `--url`: they want the service's own settings."""
    text = "make, list and revoke API keys, where the service's settings are"
    names = group.add_parser("keys", help=text, description=text).add_subparsers(dest="what", required=True)
    create = names.add_parser("create", help="make a key and print it, once")
    create.add_argument("--tenant", required=True, help="whose subjects it opens: small letters, digits, hyphens")
    create.add_argument("--name", required=True, help="what it is for; only for the list")
    create.set_defaults(run=keys.create)
    names.add_parser("list", help="all keys, without their secrets").set_defaults(run=keys.list_all)
    revoke = names.add_parser("revoke", help="make a key worthless")
    revoke.add_argument("id", help="the part of the key between its underscores")
    revoke.set_defaults(run=keys.revoke)


def _add_photos(command: ArgumentParser) -> None:
    command.add_argument("photos", nargs="+", type=_file, metavar="PHOTO", help="one or more of the same person")
    command.add_argument("--consent", action="store_true", required=True, help="the person has agreed")
    command.add_argument("--keep-photos", action="store_true", default=None, help="for learning them with later ones")
    for name, text in (("rank", "rank of the weights"), ("steps", "finetuning steps"), ("seed", "of the finetuning")):
        command.add_argument(f"--{name}", type=int, metavar="N", help=text)
    _add_wait(command, "do not wait until it is ready")


def _add_wait(command: ArgumentParser, text: str) -> None:
    command.add_argument("--no-wait", dest="wait", action="store_false", help=text)


def _add_pictures(command: ArgumentParser, **options: Any) -> None:
    default = {"default": Path()} | options
    command.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where the pictures go", **default)
    command.add_argument("--format", choices=["png", "webp"], default="png", help="of the pictures (png)")


def _with_client(asked: Namespace, transport: httpx.BaseTransport | None) -> None:
    url = getattr(asked, "url", None) or os.environ.get("HDB_URL") or DEFAULT_URL
    key = getattr(asked, "api_key", None) or os.environ.get("HDB_API_KEY")
    try:
        client = Client(url, api_key=key, transport=transport)
    except httpx.InvalidURL:
        parser().error(f"{url} is no address of a service")
    except UnicodeError:
        parser().error("the API key has characters that are in no key")
    with client:
        asked.run(client, asked, Output(as_json=getattr(asked, "json", False)))


def _file(text: str) -> Path:
    file = Path(text)
    if not file.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return file


def _lines(text: str) -> str:
    return text if text.startswith("bat_") else str(_file(text))


def _whose(text: str) -> str | dict[str, float]:
    if "=" not in text:
        return text
    try:
        parts = [part.partition("=") for part in text.split(",")]
        return {subject.strip(): float(weight) for subject, _, weight in parts}
    except ValueError:
        raise argparse.ArgumentTypeError(f"write a blend as ID=3,ID=1, not as {text}") from None
