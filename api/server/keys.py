"""`hdb keys`, also `python -m api.server.keys`: API keys, where the service's settings (`HDB_*`) are."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from core.errors import HyperDreamBoothError
from core.settings import load_settings
from core.storage import open_store
from core.tenants.api_keys import ApiKeys
from hyperdreambooth.cli.output import complain, note, when, write_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 refused, 2 the command line is wrong."""
    args = parser().parse_args(argv)
    try:
        settings = load_settings()
        args.run(ApiKeys(open_store(settings)), args, settings.store_url)
    except HyperDreamBoothError as error:
        complain(error.title(), error.detail)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    text = "make, list and revoke API keys, where the service's settings are"
    whole = argparse.ArgumentParser(prog="hdb keys", description=text)
    names = whole.add_subparsers(dest="command", required=True)
    command = names.add_parser("create", help="make a key and print it, once")
    command.add_argument("--tenant", required=True, help="whose subjects it opens: small letters, digits, hyphens")
    command.add_argument("--name", required=True, help="what it is for; only for the list")
    command.add_argument("--test", action="store_true", help="a test key: fixed pictures at once, free, kept apart")
    command.set_defaults(run=create)
    names.add_parser("list", help="all keys, without their secrets").set_defaults(run=list_all)
    command = names.add_parser("revoke", help="make a key worthless")
    command.add_argument("id", help="the 16 digits in the key, as `hdb keys list` has them")
    command.set_defaults(run=revoke)
    return whole


def create(keys: ApiKeys, args: Namespace, store_url: str) -> None:
    """Make a key and print it, once, and which service asks for it. Raises HyperDreamBoothError."""
    known, key = keys.create(args.tenant, args.name, test=args.test)
    sys.stdout.write(f"{key}\n")
    note(f"Keep this key of {known.tenant} now: it is stored as a hash, and cannot be read again.")
    note(f"Within 5 s the service whose data are in {store_url} asks all callers for a key.")


def list_all(keys: ApiKeys, _: Namespace, __: str) -> None:
    """A table of the keys, without their secrets. Raises HyperDreamBoothError."""
    rows = [
        (
            known.id,
            known.tenant,
            "test" if known.test else "live",
            known.name,
            _when(known.created_at),
            _when(known.revoked_at),
        )
        for known in sorted(keys.all(), key=lambda known: known.created_at)
    ]
    write_table(sys.stdout, [("ID", "TENANT", "MODE", "NAME", "CREATED", "REVOKED"), *rows])


def revoke(keys: ApiKeys, args: Namespace, _: str) -> None:
    """Make a key worthless. Raises HyperDreamBoothError."""
    known = keys.revoke(args.id)
    note(f"{known.id} of {known.tenant} opens nothing any more; running servers know it within 5 s.")


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else when(datetime.fromtimestamp(seconds, UTC))


if __name__ == "__main__":
    sys.exit(main())
