"""The command line `hdb`: all its commands, and its exit status.

Exit status: 0 done; 1 refused, failed or not reached, with the reason on stderr; 2 the command line is wrong;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

import httpx

from hyperdreambooth import __version__
from hyperdreambooth.cli import batches, generations, jobs, keys, service, subjects, webhooks
from hyperdreambooth.cli.output import Output, complain, complain_of
from hyperdreambooth.cli.parser import Commands, Parser, common
from hyperdreambooth.cli.pictures import NoPictures
from hyperdreambooth.client import Client, JobFailed, Problem
from hyperdreambooth.client.sync.connection import DEFAULT_URL

OK, FAILED, MISUSED, STOPPED = 0, 1, 2, 130
EPILOG = """
short forms: personalize (subjects create), photos (subjects add-photos), weights, delete (subjects ...),
             job (jobs show), batch (batches create), cancel (jobs cancel or batches cancel)

environment:
  HDB_URL      where the service is (http://127.0.0.1:8000)
  HDB_API_KEY  your key, where the service asks for one

exit status: 0 done, 1 refused or failed, 2 the command line is wrong, 130 stopped by Ctrl-C
"""


def main(argv: Sequence[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Run a command; returns the exit status. `transport` is for tests."""
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        if not args.needs_service:
            status: int = args.run(args.rest)
            return status
        _with_client(args, transport)
    except Problem as problem:
        complain_of(problem)
    except (JobFailed, NoPictures) as error:
        complain(str(error))
    except BrokenPipeError:  # the reader of the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return STOPPED
    else:
        return OK
    return FAILED


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(
        prog="hdb",
        description="Pictures of a person, from one photo of a face.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common()],
    )
    whole.add_argument("--version", action="version", version=__version__)
    top = Commands(whole.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    for resource in (subjects, generations, jobs, batches, webhooks, service, keys):
        resource.add_commands(top)
    return whole


def _with_client(args: Namespace, transport: httpx.BaseTransport | None) -> None:
    url = getattr(args, "url", None) or os.environ.get("HDB_URL") or DEFAULT_URL
    key = getattr(args, "api_key", None) or os.environ.get("HDB_API_KEY")
    try:
        client = Client(url, api_key=key, transport=transport)
    except httpx.InvalidURL:
        parser().error(f"{url} is no address of a service")
    except UnicodeError:
        parser().error("the API key has characters that are in no key")
    with client:
        args.run(client, args, Output(as_json=getattr(args, "json", False)))
